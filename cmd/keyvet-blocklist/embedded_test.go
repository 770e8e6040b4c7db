//go:build !keyvet_noblocklist

package main

import "testing"

func TestEmbedded(t *testing.T) { runScripts(t, "embedded") }
