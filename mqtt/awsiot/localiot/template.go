package localiot

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// Template is the provisioning template that every endpoint has: the thing's
// name is the parameter ThingName.
const Template = "keyvet"

const templateBody = `{
  "Parameters": {"ThingName": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
  "Resources": {
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "ThingName"}}}
  }
}`

const certificateParameter = "AWS::IoT::Certificate::Id"

// template is what of a provisioning template localiot carries out.
type template struct {
	parameters    map[string]parameter
	thing         any // an expression
	status        CertificateStatus
	configuration map[string]any // expressions
}

type parameter struct {
	Type    string
	Default *string
}

func parseTemplate(body []byte) (*template, error) {
	var doc struct {
		Parameters map[string]parameter
		Resources  map[string]struct {
			Type       string
			Properties map[string]any
		}
		DeviceConfiguration map[string]any
	}
	if err := decode(body, &doc); err != nil {
		return nil, err
	}
	t := &template{parameters: doc.Parameters, status: Active, configuration: doc.DeviceConfiguration}
	for name, p := range doc.Parameters {
		if p.Type != "String" {
			return nil, fmt.Errorf("parameter %s is of type %q, not String", name, p.Type)
		}
	}
	for _, r := range doc.Resources {
		switch r.Type {
		case "AWS::IoT::Thing":
			if t.thing != nil {
				return nil, errors.New("two things")
			}
			t.thing = r.Properties["ThingName"]
		case "AWS::IoT::Certificate":
			status, _ := r.Properties["Status"].(string) // AWS's own examples say Active and ACTIVE
			switch CertificateStatus(strings.ToUpper(status)) {
			case Active, "":
			case Inactive:
				t.status = Inactive
			default:
				return nil, fmt.Errorf("status %q", status)
			}
		case "AWS::IoT::Policy":
		default:
			return nil, fmt.Errorf("a resource of type %q", r.Type)
		}
	}
	if t.thing == nil {
		return nil, errors.New("no thing with a ThingName")
	}
	return t, nil
}

func (t *template) evaluate(parameters map[string]string, certificateID string) (thing string, configuration map[string]any, err error) {
	values := map[string]string{certificateParameter: certificateID}
	for name, p := range t.parameters {
		value, given := parameters[name]
		switch {
		case name == certificateParameter:
		case given:
			values[name] = value
		case p.Default != nil:
			values[name] = *p.Default
		default:
			return "", nil, fmt.Errorf("parameter %s is missing", name)
		}
	}
	for name := range parameters {
		if _, known := t.parameters[name]; !known {
			return "", nil, fmt.Errorf("the template has no parameter %s", name)
		}
	}
	if thing, err = evaluate(t.thing, values, 0); err != nil {
		return "", nil, err
	}
	if !validName(thing) {
		return "", nil, fmt.Errorf("%.140q is no thing's name", thing)
	}
	configuration = make(map[string]any)
	for name, expression := range t.configuration {
		if configuration[name], err = evaluate(expression, values, 0); err != nil {
			return "", nil, err
		}
	}
	return thing, configuration, nil
}

const maxDepth = 8

var substituted = regexp.MustCompile(`\$\{([^}]*)\}`)

// evaluate works out a string, {"Ref": …}, {"Fn::Join": …} or {"Fn::Sub": …}.
func evaluate(expression any, values map[string]string, depth int) (string, error) {
	if depth > maxDepth {
		return "", errors.New("the template's expressions are too deep")
	}
	switch e := expression.(type) {
	case string:
		return e, nil
	case map[string]any:
		if len(e) == 1 {
			for function, argument := range maps.All(e) {
				return call(function, argument, values, depth)
			}
		}
	}
	return "", fmt.Errorf("%.80v is no expression", expression)
}

func call(function string, argument any, values map[string]string, depth int) (string, error) {
	switch function {
	case "Ref":
		name, _ := argument.(string)
		value, ok := values[name]
		if !ok {
			return "", fmt.Errorf("parameter %q is not declared", name)
		}
		return value, nil
	case "Fn::Join":
		list, _ := argument.([]any)
		if len(list) != 2 {
			break
		}
		separator, ok := list[0].(string)
		parts, ok2 := list[1].([]any)
		if !ok || !ok2 {
			break
		}
		joined := ""
		for i, part := range parts {
			value, err := evaluate(part, values, depth+1)
			if err != nil {
				return "", err
			}
			if i > 0 {
				joined += separator
			}
			joined += value
		}
		return joined, nil
	case "Fn::Sub":
		text, ok := argument.(string)
		if !ok {
			break
		}
		var err error
		text = substituted.ReplaceAllStringFunc(text, func(ref string) string {
			value, known := values[ref[2:len(ref)-1]]
			if !known {
				err = fmt.Errorf("parameter %s is not declared", ref)
			}
			return value
		})
		return text, err
	}
	return "", fmt.Errorf("%s of %.80v is not supported", function, argument)
}
