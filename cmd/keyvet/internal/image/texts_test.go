package main

import (
	"os"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli/clitest"
)

func TestTexts(t *testing.T) { clitest.Texts(t, program(os.Getenv), "../../../..") }

func TestHelp(t *testing.T) { clitest.Help(t, program(os.Getenv)) }
