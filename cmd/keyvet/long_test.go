//go:build longtest

package main

// Those that take minutes: make long-scripts.
const scripts = "testdata/long"
