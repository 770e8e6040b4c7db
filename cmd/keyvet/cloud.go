package main

import (
	"context"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// cloud is a proven session, as the agent wants one.
type cloud struct {
	*awsiot.Client
	session *mqtt.Session
	wanted  chan struct{} // capacity 1
}

func (c *cloud) ReportMetrics(context.Context, *device.Report) error { return nil }

func (c *cloud) Next(context.Context) (*agent.Work, error) { return nil, nil }

func (c *cloud) Wanted() <-chan struct{} { return c.wanted }
func (c *cloud) Done() <-chan struct{}   { return c.session.Done() }
func (c *cloud) Close()                  { c.session.Close() }
