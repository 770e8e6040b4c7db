//go:build keyvet_noblocklist

package main

import "testing"

func TestNotEmbedded(t *testing.T) { runScripts(t, "notembedded") }
