//go:build !longtest

package main

const scripts = "testdata/script"
