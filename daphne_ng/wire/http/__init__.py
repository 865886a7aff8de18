"""What a header field means: what HTTP/1.1 and HTTP/2 share."""
