// A passcode, encrypted in the browser by nothing but WebCrypto, and set or verified by the key service.
const GENERATE = `mutation GenerateClientEncryptionKey($input: ClientIdentityInput!) {
  generateClientEncryptionKey(input: $input) { publicKey keyId }
}`;
const ACTS = {
  set: "mutation SetUserPasscode($input: EncryptedPasscodeInput!) { done: setUserPasscode(input: $input) }",
  verify:
    "mutation VerifyUserPasscode($input: EncryptedVerifyPasscodeInput!) { done: verifyUserPasscode(input: $input) }",
};

async function ask(url, query, input) {
  const response = await fetch(`${url}/graphql`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ query, variables: { input } }),
  });
  const { data, errors, extensions } = await response.json();
  if (errors) throw new Error(errors[0].message);
  return { data, told: extensions?.keystead };
}

// A PEM is base64 between two lines.
function fromPem(pem) {
  const text = atob(pem.replace(/-----[^-]+-----|\s/g, ""));
  return Uint8Array.from(text, (sign) => sign.charCodeAt(0));
}

export async function encrypt(publicKey, secret) {
  const algorithm = { name: "RSA-OAEP", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("spki", fromPem(publicKey), algorithm, false, ["encrypt"]);
  const bytes = new Uint8Array(await crypto.subtle.encrypt(algorithm, key, new TextEncoder().encode(secret)));
  return btoa(String.fromCharCode(...bytes));
}

// One device for each browser: an id that it gives itself, and keeps.
function deviceId() {
  const known = localStorage.getItem("device-id") ?? crypto.randomUUID();
  localStorage.setItem("device-id", known);
  return known;
}

export async function send(url, act, secret) {
  const { data } = await ask(url, GENERATE, { deviceId: deviceId(), appVersion: "example 1" });
  const { publicKey, keyId } = data.generateClientEncryptionKey;
  const input = { encryptedPasscode: await encrypt(publicKey, secret), keyId, algorithm: "RSA_OAEP_SHA256" };
  const answer = await ask(url, ACTS[act], input);
  return { done: answer.data.done, ...answer.told };
}

const form = document.getElementById("form");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = document.getElementById("answer");
  const { url, passcode } = Object.fromEntries(new FormData(form));
  const act = event.submitter.value;
  answer.textContent = "…";
  try {
    const { done, code } = await send(url, act, passcode);
    const told = act === "set" ? "The passcode is set." : "It is the passcode.";
    answer.textContent = done ? told : `It is not the passcode (${code}).`;
  } catch (error) {
    answer.textContent = `It did not work: ${error.message}`;
  }
});
