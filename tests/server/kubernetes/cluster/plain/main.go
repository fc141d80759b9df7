// Command plain calls a KMS plugin by Kubernetes' own stubs: a request in JSON a line, and an answer in JSON a line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kms "k8s.io/kms/apis/v2"
	"k8s.io/kms/pkg/util"
)

type request struct {
	Call        string            `json:"call"`
	Number      int               `json:"number"`
	Plaintext   []byte            `json:"plaintext"`
	Ciphertext  []byte            `json:"ciphertext"`
	UID         string            `json:"uid"`
	KeyID       string            `json:"key_id"`
	Annotations map[string][]byte `json:"annotations"`
	TimeoutMS   int               `json:"timeout_ms"`
}

type answer struct {
	Code        string            `json:"code"`
	Message     string            `json:"message"`
	Version     string            `json:"version"`
	Healthz     string            `json:"healthz"`
	KeyID       string            `json:"key_id"`
	Plaintext   []byte            `json:"plaintext"`
	Ciphertext  []byte            `json:"ciphertext"`
	Annotations map[string][]byte `json:"annotations"`
	EncryptP95  float64           `json:"encrypt_p95_ms"`
	DecryptP95  float64           `json:"decrypt_p95_ms"`
}

func main() {
	address, err := util.ParseEndpoint(os.Args[1])
	if err != nil {
		panic(err)
	}
	connection, err := grpc.NewClient("unix:"+address,
		grpc.WithAuthority("localhost"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		panic(err)
	}
	client := kms.NewKeyManagementServiceClient(connection)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			panic(err)
		}
		made, err := do(client, &asked)
		if err != nil {
			told := status.Convert(err)
			made = &answer{Code: told.Code().String(), Message: told.Message()}
		}
		if err := out.Encode(made); err != nil {
			panic(err)
		}
	}
}

func do(client kms.KeyManagementServiceClient, asked *request) (*answer, error) {
	timeout := 3 * time.Second
	if asked.TimeoutMS > 0 {
		timeout = time.Duration(asked.TimeoutMS) * time.Millisecond
	}
	if asked.Call == "measure" {
		return measure(client, asked)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	switch asked.Call {
	case "status":
		got, err := client.Status(ctx, &kms.StatusRequest{})
		if err != nil {
			return nil, err
		}
		return &answer{Version: got.Version, Healthz: got.Healthz, KeyID: got.KeyId}, nil
	case "encrypt":
		got, err := client.Encrypt(ctx, &kms.EncryptRequest{Plaintext: asked.Plaintext, Uid: asked.UID})
		if err != nil {
			return nil, err
		}
		return &answer{Ciphertext: got.Ciphertext, KeyID: got.KeyId, Annotations: got.Annotations}, nil
	default:
		got, err := client.Decrypt(ctx, &kms.DecryptRequest{
			Ciphertext: asked.Ciphertext, Uid: asked.UID, KeyId: asked.KeyID, Annotations: asked.Annotations})
		if err != nil {
			return nil, err
		}
		return &answer{Plaintext: got.Plaintext}, nil
	}
}

func measure(client kms.KeyManagementServiceClient, asked *request) (*answer, error) {
	ctx := context.Background()
	var encrypted, decrypted []time.Duration
	for range asked.Number {
		begun := time.Now()
		made, err := client.Encrypt(ctx, &kms.EncryptRequest{Plaintext: asked.Plaintext})
		if err != nil {
			return nil, err
		}
		between := time.Now()
		_, err = client.Decrypt(ctx, &kms.DecryptRequest{
			Ciphertext: made.Ciphertext, KeyId: made.KeyId, Annotations: made.Annotations})
		if err != nil {
			return nil, err
		}
		encrypted = append(encrypted, between.Sub(begun))
		decrypted = append(decrypted, time.Since(between))
	}
	return &answer{EncryptP95: p95(encrypted), DecryptP95: p95(decrypted)}, nil
}

func p95(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)*95/100].Microseconds()) / 1000
}
