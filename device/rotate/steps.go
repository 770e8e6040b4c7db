package rotate

import (
	"context"
	"errors"
	"slices"
)

// step is one step of a rotation. Do and undo may be called again after they
// were interrupted anywhere, and undo also where do never was.
type step struct {
	name     string // in the journal and in statusDetails
	do, undo func(*worker, context.Context) error
}

const (
	stepReserve = "reserve"
	stepMake    = "make"
	stepVet     = "vet"
	stepEnrol   = "enrol"
	stepCheck   = "check"
	stepTry     = "try"
	stepCommit  = "commit"
	stepProve   = "prove"
	stepRetire  = "retire"
)

// steps returns a rotation, step by step: each is in the file of its name.
func steps() []step {
	return []step{
		{stepReserve, (*worker).reserve, (*worker).release},
		{stepMake, (*worker).make, (*worker).unmake},
		{stepVet, (*worker).vet, nothing},
		{stepEnrol, (*worker).enrol, nothing}, // the certificate goes with its key
		{stepCheck, (*worker).check, nothing},
		{stepTry, (*worker).try, nothing},
		{stepCommit, (*worker).commit, (*worker).uncommit},
		{stepProve, (*worker).prove, nothing},
		{stepRetire, (*worker).retire, nothing},
	}
}

// LastStep is the last step of a rotation.
const LastStep = stepRetire

// StepsBetween returns the steps after one, or from the first if that is "", and
// before another.
func StepsBetween(after, before string) []string {
	var names []string
	for i := indexOf(after) + 1; i < indexOf(before); i++ {
		names = append(names, steps()[i].name)
	}
	return names
}

// indexOf returns where a step is in the list, -1 if it is not.
func indexOf(name string) int {
	return slices.IndexFunc(steps(), func(s step) bool { return s.name == name })
}

func nothing(*worker, context.Context) error { return nil }

// errForward is what undoing a step answers where there is no way back.
var errForward = errors.New("the way back is closed")
