"""TLS: certificates, contexts, transports."""
