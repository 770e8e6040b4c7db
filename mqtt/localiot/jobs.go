package localiot

import (
	"encoding/json"
	"strings"
	"time"
)

// reply sends payload to the request's topic with a suffix: "accepted", "rejected" …
type reply = func(suffix string, payload any)

// answerJobs answers as AWS IoT Jobs does for a thing that has none
// (AWS IoT Developer Guide, "Jobs device MQTT and HTTPS APIs").
func answerJobs(operation string, payload []byte, send reply) {
	var request struct {
		ClientToken string `json:"clientToken"`
	}
	answer := map[string]any{"timestamp": time.Now().Unix()}
	reject := func(code, message string) {
		answer["code"], answer["message"] = code, message
		send("rejected", answer)
	}
	if len(payload) > 0 {
		if err := json.Unmarshal(payload, &request); err != nil {
			reject("InvalidJson", "the request is not a JSON object with a text for clientToken")
			return
		}
	}
	if request.ClientToken != "" {
		answer["clientToken"] = request.ClientToken
	}
	job, verb, _ := strings.Cut(operation, "/")
	switch {
	case operation == "get":
		answer["inProgressJobs"], answer["queuedJobs"] = []any{}, []any{}
		send("accepted", answer)
	case operation == "start-next" || operation == "$next/get":
		send("accepted", answer)
	case validName(job) && (verb == "get" || verb == "update"):
		reject("ResourceNotFound", "there is no job "+job)
	}
}
