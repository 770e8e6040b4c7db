// Command bare writes the TPM commands of a file to a socket, one after the
// other, and reads the responses: the least that a process can do that reads a TPM.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
)

func main() {
	if err := send(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func send(socket, file string) error {
	commands, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	response := make([]byte, 4096)
	for len(commands) > 0 {
		length := binary.BigEndian.Uint32(commands[2:]) // after the tag (Part 1, section 18)
		if _, err := conn.Write(commands[:length]); err != nil {
			return err
		}
		commands = commands[length:]
		if _, err := io.ReadFull(conn, response[:10]); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, response[10:binary.BigEndian.Uint32(response[2:])]); err != nil {
			return err
		}
	}
	return nil
}
