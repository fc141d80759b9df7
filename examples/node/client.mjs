// What an application on Node.js does: get a device's key, encrypt a passcode to it, set it and verify it.
//
//     node client.mjs http://localhost:3000 [token]
//
// Needs nothing but Node.js 20. A service under --dev takes no token.
import { constants, publicEncrypt } from "node:crypto";

const [url = "http://localhost:3000", token] = process.argv.slice(2);

async function ask(query, variables) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(`${url}/graphql`, {
    method: "POST",
    headers,
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  if (errors) throw new Error(errors.map((error) => `${error.extensions?.code}: ${error.message}`).join("; "));
  return data;
}

// Node's default for OAEP is SHA-1, which is also the service's: nothing has to be declared.
function encrypt(publicKey, secret) {
  const key = { key: publicKey, padding: constants.RSA_PKCS1_OAEP_PADDING };
  return publicEncrypt(key, Buffer.from(secret, "utf8")).toString("base64");
}

const input = { deviceId: "device-123", appVersion: "1.0.0" };
const { generateClientEncryptionKey: key } = await ask(
  `mutation GenerateClientEncryptionKey($input: ClientIdentityInput!) {
    generateClientEncryptionKey(input: $input) { publicKey keyId }
  }`,
  { input },
);

const passcode = (secret) => ({
  input: { encryptedPasscode: encrypt(key.publicKey, secret), keyId: key.keyId, passwordAuthType: "PASSCODE" },
});
const set = await ask(
  `mutation SetUserPasscode($input: EncryptedPasscodeInput!) { setUserPasscode(input: $input) }`,
  passcode("correct horse 🐎"),
);
const verify = `mutation VerifyUserPasscode($input: EncryptedVerifyPasscodeInput!) { verifyUserPasscode(input: $input) }`;
const right = await ask(verify, passcode("correct horse 🐎"));
const wrong = await ask(verify, passcode("battery staple"));
console.log(JSON.stringify({ keyId: key.keyId, ...set, right: right.verifyUserPasscode, wrong: wrong.verifyUserPasscode }));
