// An application that keeps its secrets with OpenBao's client for Go, which speaks to Vault as well: go run .
package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/openbao/openbao/api/v2"
)

const foreignKey = "somebody-elses"

type object = map[string]any

// transit is the application's door to its keys. Every method stops the program where the server refuses.
type transit struct {
	client *api.Client
}

func main() {
	prefix := os.Getenv("KEY_PREFIX")
	if prefix == "" {
		prefix = "tour"
	}
	dataKey, signingKey := prefix+"-data", prefix+"-signing"

	config := api.DefaultConfig()
	check(config.Error)
	config.Address = os.Getenv("VAULT_ADDR")
	client, err := api.NewClient(config)
	check(err)
	door := transit{client}

	login := door.write("auth/approle/login", object{
		"role_id":   os.Getenv("VAULT_ROLE_ID"),
		"secret_id": os.Getenv("VAULT_SECRET_ID"),
	})
	client.SetToken(login.Auth.ClientToken)
	_, err = client.Auth().Token().LookupSelf()
	check(err)
	done("log in")

	door.write("transit/keys/"+dataKey, object{})
	door.write("transit/keys/"+signingKey, object{"type": "ed25519"})
	key, err := client.Logical().Read("transit/keys/" + dataKey)
	check(err)
	expect(key.Data["type"] == "aes256-gcm96", "the key is an AES key")
	done("create keys")

	secret := encoded("4111 1111 1111 1111")
	ciphertext := door.text("transit/encrypt/"+dataKey, object{"plaintext": secret}, "ciphertext")
	expect(strings.HasPrefix(ciphertext, "vault:v1:"), "the ciphertext names version 1 of the key")
	expect(door.decrypted(dataKey, object{"ciphertext": ciphertext}) == secret, "it decrypts")
	done("encrypt and decrypt")

	row := encoded("customers/7")
	bound := door.text("transit/encrypt/"+dataKey, object{"plaintext": secret, "associated_data": row}, "ciphertext")
	opened := door.decrypted(dataKey, object{"ciphertext": bound, "associated_data": row})
	expect(opened == secret, "what is bound to a row decrypts with the row")
	door.refused(400, "another row's", "transit/decrypt/"+dataKey,
		object{"ciphertext": bound, "associated_data": encoded("customers/8")})
	done("associated data")

	texts := []string{encoded("number 0"), encoded("number 1"), encoded("number 2")}
	plain := make([]object, len(texts))
	for at, text := range texts {
		plain[at] = object{"plaintext": text}
	}
	sealed := make([]object, len(texts))
	for at, each := range door.results("transit/encrypt/"+dataKey, plain) {
		sealed[at] = object{"ciphertext": each["ciphertext"]}
	}
	for at, each := range door.results("transit/decrypt/"+dataKey, sealed) {
		expect(each["plaintext"] == texts[at], "a batch decrypts in its order")
	}
	done("batch")

	pair := door.write("transit/datakey/plaintext/"+dataKey, object{}).Data
	raw, err := base64.StdEncoding.DecodeString(pair["plaintext"].(string))
	check(err)
	expect(len(raw) == 32, "a data key has 32 bytes")
	unwrapped := door.decrypted(dataKey, object{"ciphertext": pair["ciphertext"]})
	expect(unwrapped == pair["plaintext"], "the wrapped data key decrypts to the data key")
	done("data key")

	message, other := encoded("pay 10 to Ada"), encoded("pay 99 to Ada")
	code := door.text("transit/hmac/"+dataKey, object{"input": message}, "hmac")
	expect(door.valid(dataKey, object{"input": message, "hmac": code}), "an HMAC is of its message")
	expect(!door.valid(dataKey, object{"input": other, "hmac": code}), "an HMAC is of no other message")
	done("hmac")

	signature := door.text("transit/sign/"+signingKey, object{"input": message}, "signature")
	expect(door.valid(signingKey, object{"input": message, "signature": signature}), "a signature is of its message")
	expect(!door.valid(signingKey, object{"input": other, "signature": signature}), "a signature is of no other message")
	done("sign and verify")

	door.write("transit/keys/"+dataKey+"/rotate", nil)
	rewrapped := door.text("transit/rewrap/"+dataKey, object{"ciphertext": ciphertext}, "ciphertext")
	expect(strings.HasPrefix(rewrapped, "vault:v2:"), "a rewrapped ciphertext names version 2 of the key")
	for _, each := range []string{ciphertext, rewrapped} {
		expect(door.decrypted(dataKey, object{"ciphertext": each}) == secret, "both decrypt")
	}
	done("rotate and rewrap")

	broken := ciphertext[:len(ciphertext)-8] + "AAAAAAA="
	door.refused(400, "a broken ciphertext", "transit/decrypt/"+dataKey, object{"ciphertext": broken})
	door.refused(403, "another's key", "transit/encrypt/"+foreignKey, object{"plaintext": secret})
	done("refusals")

	check(client.Auth().Token().RevokeSelf(""))
	door.refused(403, "a token that was revoked", "transit/encrypt/"+dataKey, object{"plaintext": secret})
	done("log out")
}

func (door transit) write(path string, given object) *api.Secret {
	answer, err := door.client.Logical().Write(path, given)
	check(err)
	return answer
}

func (door transit) text(path string, given object, field string) string {
	text, isText := door.write(path, given).Data[field].(string)
	expect(isText, path+" answers "+field)
	return text
}

func (door transit) decrypted(key string, given object) string {
	return door.text("transit/decrypt/"+key, given, "plaintext")
}

func (door transit) valid(key string, given object) bool {
	isValid, isBool := door.write("transit/verify/"+key, given).Data["valid"].(bool)
	expect(isBool, "a verification is true or false")
	return isValid
}

func (door transit) results(path string, items []object) []object {
	listed, isList := door.write(path, object{"batch_input": items}).Data["batch_results"].([]any)
	expect(isList && len(listed) == len(items), "a batch has a result for each item")
	results := make([]object, len(listed))
	for at, each := range listed {
		results[at] = each.(object)
	}
	return results
}

func (door transit) refused(status int, what string, path string, given object) {
	_, err := door.client.Logical().Write(path, given)
	var refusal *api.ResponseError
	if !errors.As(err, &refusal) || refusal.StatusCode != status {
		fail(fmt.Sprintf("not refused with %d: %s: %v", status, what, err))
	}
}

// encoded returns a text as Transit takes it.
func encoded(text string) string {
	return base64.StdEncoding.EncodeToString([]byte(text))
}

func expect(isSo bool, what string) {
	if !isSo {
		fail("not so: " + what)
	}
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func done(step string) {
	fmt.Println("ok: " + step)
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}
