// A client of grpc-go: grpcget stream|bidi ADDRESS MESSAGES RATE; a rate of 0 is as fast as it goes
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte(nil), data...); return nil }
func (raw) Name() string                       { return "raw" }

func main() {
	mode, address := os.Args[1], os.Args[2]
	messages, _ := strconv.Atoi(os.Args[3])
	rate := os.Args[4]
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	fail(err)
	begun := time.Now()
	method := "/test.Echo/Stream"
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: mode == "bidi"}
	if mode == "bidi" {
		method = "/test.Echo/Bidi"
	}
	stream, err := connection.NewStream(context.Background(), description, method)
	fail(err)
	got := 0
	if mode == "bidi" {
		perSecond, _ := strconv.ParseFloat(rate, 64)
		go func() {
			payload := make([]byte, 100)
			for i := 0; i < messages; i++ {
				if err := stream.SendMsg(&payload); err != nil {
					return
				}
				if perSecond > 0 {
					time.Sleep(time.Duration(float64(time.Second) / perSecond))
				}
			}
			stream.CloseSend()
		}()
	} else {
		question := []byte(os.Args[3] + " " + rate)
		fail(stream.SendMsg(&question))
		fail(stream.CloseSend())
	}
	for {
		var message []byte
		err := stream.RecvMsg(&message)
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println("FAILED after", got, "messages and", time.Since(begun), err)
			os.Exit(1)
		}
		got++
	}
	if got != messages {
		fmt.Println("FAILED", got, "of", messages)
		os.Exit(1)
	}
	fmt.Println("fine", mode, got, time.Since(begun), grpc.Version)
}

func fail(err error) {
	if err != nil {
		fmt.Println("FAILED", err)
		os.Exit(1)
	}
}
