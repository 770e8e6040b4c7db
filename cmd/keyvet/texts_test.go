package main

import (
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
)

func TestTexts(t *testing.T) { clitest.Texts(t, program, "../..") }

func TestHelp(t *testing.T) { clitest.Help(t, program) }
