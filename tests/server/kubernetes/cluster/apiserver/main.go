// Command apiserver reads and writes secrets as an API server does, by its own code: the configuration it is given is
// parsed, validated and put to use by k8s.io/apiserver. A request in JSON a line, and an answer in JSON a line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"
	"sigs.k8s.io/yaml"
)

type request struct {
	Call   string `json:"call"`
	Config string `json:"config"`
	Name   string `json:"name"`
	Data   []byte `json:"data"`
}

type answer struct {
	Error string `json:"error"`
	Data  []byte `json:"data"`
	Stale bool   `json:"stale"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	var loaded *encryptionconfig.EncryptionConfiguration
	stop := func() {}
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		var made answer
		var err error
		switch asked.Call {
		case "pod":
			err = yaml.UnmarshalStrict(asked.Data, &core.Pod{})
		case "load":
			// As at a restart: nothing is known of the plugin any more.
			stop()
			var ctx context.Context
			ctx, stop = context.WithCancel(context.Background())
			loaded, err = encryptionconfig.LoadEncryptionConfig(ctx, asked.Config, false, "one")
		case "healthz":
			asking, _ := http.NewRequest(http.MethodGet, "/healthz", nil)
			err = loaded.HealthChecks[0].Check(asking)
		case "write":
			made.Data, err = secrets(loaded).TransformToStorage(context.Background(), asked.Data, path(asked))
		case "read":
			made.Data, made.Stale, err = secrets(loaded).TransformFromStorage(context.Background(), asked.Data, path(asked))
		}
		if err != nil {
			made = answer{Error: err.Error()}
		}
		if err := out.Encode(made); err != nil {
			panic(err)
		}
	}
}

func secrets(loaded *encryptionconfig.EncryptionConfiguration) value.Transformer {
	return loaded.Transformers[schema.GroupResource{Resource: "secrets"}]
}

func path(asked request) value.Context {
	return value.DefaultContext("/registry/secrets/default/" + asked.Name)
}
