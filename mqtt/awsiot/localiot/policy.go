package localiot

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// policy is what certificates may do: the statements of some AWS IoT policies
// (AWS IoT Developer Guide, "AWS IoT Core policies").
type policy []statement

type statement struct {
	Effect    string
	Action    oneOrMore
	Resource  oneOrMore
	Condition map[string]map[string]oneOrMore
	attached  bool // it counts for a client that is its certificate's thing
}

// oneOrMore is a string or a list of them.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// The actions, each with the kind of resource that it is on.
const (
	connect    = "iot:Connect client/"
	publishTo  = "iot:Publish topic/"
	subscribe  = "iot:Subscribe topicfilter/"
	receive    = "iot:Receive topic/"
	thingName  = "${iot:Connection.Thing.ThingName}"
	clientID   = "${iot:ClientId}"
	isAttached = "iot:Connection.Thing.IsAttached"
)

// devicePolicy and claimPolicy are those of an endpoint that is given none: a
// device has its own thing's topics and those of fleet provisioning, under any
// client id, and a claim the latter alone.
const (
	devicePolicy = `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
		{"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": [
			"arn:aws:iot:::topic/$aws/things/${thing}/*", "arn:aws:iot:::topic/keyvet/${thing}/*",
			"arn:aws:iot:::topic/$aws/certificates/create-from-csr/json*", "arn:aws:iot:::topic/$aws/provisioning-templates/*"]},
		{"Effect": "Allow", "Action": "iot:Subscribe", "Resource": [
			"arn:aws:iot:::topicfilter/$aws/things/${thing}/*", "arn:aws:iot:::topicfilter/keyvet/${thing}/*",
			"arn:aws:iot:::topicfilter/$aws/certificates/create-from-csr/json*", "arn:aws:iot:::topicfilter/$aws/provisioning-templates/*"]}]}`
	claimPolicy = `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
		{"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": [
			"arn:aws:iot:::topic/$aws/certificates/create-from-csr/json*", "arn:aws:iot:::topic/$aws/provisioning-templates/*"]},
		{"Effect": "Allow", "Action": "iot:Subscribe", "Resource": [
			"arn:aws:iot:::topicfilter/$aws/certificates/create-from-csr/json*", "arn:aws:iot:::topicfilter/$aws/provisioning-templates/*"]}]}`
)

// ownThing stands for the certificate's thing, whatever the client id: AWS IoT
// has nothing of the kind, and a policy that is given may not use it.
const ownThing = "${thing}"

// parsePolicies joins the policies that a certificate has.
func parsePolicies(documents ...[]byte) (policy, error) {
	var all policy
	for _, b := range documents {
		var doc struct {
			Version   string
			Statement []statement
		}
		if err := decode(b, &doc); err != nil {
			return nil, err
		}
		if doc.Version != "2012-10-17" || len(doc.Statement) == 0 {
			return nil, errors.New("no statement, or not of version 2012-10-17")
		}
		for _, s := range doc.Statement {
			if err := s.check(); err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

func (s *statement) check() error {
	if s.Effect != "Allow" && s.Effect != "Deny" {
		return fmt.Errorf("effect %q", s.Effect)
	}
	if len(s.Action) == 0 || len(s.Resource) == 0 {
		return errors.New("a statement without action or resource")
	}
	for operator, conditions := range s.Condition {
		for key, values := range conditions {
			if operator != "Bool" || key != isAttached || len(values) != 1 || values[0] != "true" {
				return fmt.Errorf("condition %s of %s is not supported", operator, key)
			}
			s.attached = true
		}
	}
	for i, resource := range s.Resource {
		if resource == "*" {
			continue
		}
		parts := strings.SplitN(resource, ":", 6)
		if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iot" {
			return fmt.Errorf("resource %q is no ARN of AWS IoT's", resource)
		}
		s.Resource[i] = parts[5]
	}
	return nil
}

// allows reports whether a client may do something: one of the actions above, on
// the client id, topic or filter given. The thing's variables are known only
// to a client whose id is the name of its certificate's thing (Developer
// Guide, "Thing policy variables").
func (p policy) allows(action, on, client, thing string) bool {
	action, kind, _ := strings.Cut(action, " ")
	allowed := false
	for _, s := range p {
		if s.attached && (thing == "" || client != thing) || !s.covers(action, kind+on, client, thing) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		allowed = true
	}
	return allowed
}

func (s *statement) covers(action, resource, client, thing string) bool {
	covered := false
	for _, a := range s.Action {
		covered = covered || fits(a, action)
	}
	if !covered {
		return false
	}
	for _, r := range s.Resource {
		if thing != "" {
			r = strings.ReplaceAll(r, ownThing, thing)
			if client == thing {
				r = strings.ReplaceAll(r, thingName, thing)
			}
		}
		if !strings.ContainsAny(client, "*?") {
			r = strings.ReplaceAll(r, clientID, client)
		}
		if !strings.Contains(r, "${") && fits(r, resource) {
			return true
		}
	}
	return false
}

// fits matches text against a pattern in which * is any text and ? any one byte.
func fits(pattern, text string) bool {
	p, t := 0, 0
	star, from := -1, 0 // the last * and where in the text what follows it is tried
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
