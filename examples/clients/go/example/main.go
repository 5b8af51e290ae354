// Appends three orders, reads them back and truncates: `WALSTORAGE_SOCKET=... go run ./example`.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	walstorage "github.com/walstorage/walstorage/examples/clients/go"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	orders, err := walstorage.Open(os.Getenv("WALSTORAGE_SOCKET"), "orders-go")
	if err != nil {
		return err
	}
	defer orders.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	first, last, err := orders.Append(ctx, []byte(`{"order": 1}`), []byte(`{"order": 2}`), []byte(`{"order": 3}`))
	if err != nil {
		return err
	}
	fmt.Printf("appended LSN %d to %d\n", first, last)
	err = orders.Read(ctx, first, false, func(entry walstorage.Entry) error {
		fmt.Printf("read %d: %s\n", entry.LSN, entry.Payload)
		return nil
	})
	if err != nil {
		return err
	}
	truncatedTo, err := orders.Truncate(ctx, last)
	if err != nil {
		return err
	}
	fmt.Printf("truncated to %d\n", truncatedTo)
	return nil
}
