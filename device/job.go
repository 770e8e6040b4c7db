package device

// Job is one execution of a job on this device; the zero value is none.
type Job struct {
	ID        string `json:"id"`
	Execution int64  `json:"execution,omitempty"` // distinguishes the runs of one job on one device
}

// JobState is the state of a job on one device, in AWS IoT's words (AWS IoT
// Developer Guide, "Job execution states").
type JobState string

// The states that a device sees or sets.
const (
	JobQueued     JobState = "QUEUED"
	JobInProgress JobState = "IN_PROGRESS"
	JobSucceeded  JobState = "SUCCEEDED"
	JobFailed     JobState = "FAILED"
	JobTimedOut   JobState = "TIMED_OUT"
	JobRejected   JobState = "REJECTED" // never begun, and never will be
	JobRemoved    JobState = "REMOVED"
	JobCanceled   JobState = "CANCELED"
)

// Ended reports whether a job in this state is over for good.
func (s JobState) Ended() bool {
	switch s {
	case JobSucceeded, JobFailed, JobTimedOut, JobRejected, JobRemoved, JobCanceled:
		return true
	}
	return false
}
