// Go's own HTTP/2 client, in its habits: h2get get|close|cancel|hang URL [N] [RATE]
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	mode, url := os.Args[1], os.Args[2]
	count, rate := 1, 50.0
	if len(os.Args) > 3 {
		count, _ = strconv.Atoi(os.Args[3])
	}
	if len(os.Args) > 4 { // a second
		rate, _ = strconv.ParseFloat(os.Args[4], 64)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	transport.Protocols = protocols
	client := &http.Client{Transport: transport}
	fail := func(err error) {
		if err != nil {
			fmt.Println("FAILED", err)
			os.Exit(1)
		}
	}
	switch mode {
	case "get": // reads 4 KiB at a time
		for i := 0; i < count; i++ {
			response, err := client.Get(url)
			fail(err)
			total, buffer := int64(0), make([]byte, 4096)
			for {
				n, err := response.Body.Read(buffer)
				total += int64(n)
				if err == io.EOF {
					break
				}
				fail(err)
			}
			response.Body.Close()
			fmt.Println("bytes", total, response.Proto)
		}
	case "close": // looks at the status and nothing else
		for i := 0; i < count; i++ {
			response, err := client.Get(url)
			fail(err)
			response.Body.Close()
			time.Sleep(time.Duration(float64(time.Second) / rate))
		}
	case "cancel", "hang": // url+"hang" never answers in time, url does
		var wait sync.WaitGroup
		var wrong atomic.Int64
		for i := 0; i < count; i++ {
			wait.Add(1)
			go func() {
				defer wait.Done()
				timed, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
				defer cancel()
				request, _ := http.NewRequestWithContext(timed, "GET", url+"hang", nil)
				if response, err := client.Do(request); err == nil {
					response.Body.Close()
					wrong.Add(1)
				} else if timed.Err() == nil {
					fmt.Println("FAILED", err)
					wrong.Add(1)
				}
			}()
			if mode == "cancel" {
				response, err := client.Get(url)
				fail(err)
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			time.Sleep(time.Duration(float64(time.Second) / rate))
		}
		wait.Wait()
		if wrong.Load() > 0 {
			fmt.Println("FAILED: not cancelled but", wrong.Load())
			os.Exit(1)
		}
	}
	fmt.Println("fine", mode, count, runtime.Version())
}
