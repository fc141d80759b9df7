// An application that keeps its secrets with node-vault, a client of Vault for Node.js: node tour.mjs

import nodeVault from "node-vault";

const prefix = process.env.KEY_PREFIX ?? "tour";
const dataKey = `${prefix}-data`;
const signingKey = `${prefix}-signing`;
const foreignKey = "somebody-elses";

const vault = nodeVault({ endpoint: process.env.VAULT_ADDR });

async function main() {
  // The client uses the token of a login from here on.
  const login = await vault.approleLogin({
    role_id: process.env.VAULT_ROLE_ID,
    secret_id: process.env.VAULT_SECRET_ID,
  });
  expect(vault.token === login.auth.client_token, "the client has the token of the login");
  await vault.tokenLookupSelf();
  done("log in");

  await vault.transitCreateKey({ name: dataKey });
  await vault.transitCreateKey({ name: signingKey, type: "ed25519" });
  const key = await vault.transitReadKey({ name: dataKey });
  expect(key.data.type === "aes256-gcm96", "the key is an AES key");
  done("create keys");

  const secret = encoded("4111 1111 1111 1111");
  const { ciphertext } = (await vault.encryptData({ name: dataKey, plaintext: secret })).data;
  expect(ciphertext.startsWith("vault:v1:"), "the ciphertext names version 1 of the key");
  expect((await decrypted({ ciphertext })) === secret, "it decrypts");
  done("encrypt and decrypt");

  // What the client's own methods do not know goes through write.
  const row = encoded("customers/7");
  const bound = await vault.write(`transit/encrypt/${dataKey}`, { plaintext: secret, associated_data: row });
  const opened = await decrypted({ ciphertext: bound.data.ciphertext, associated_data: row });
  expect(opened === secret, "what is bound to a row decrypts with the row");
  await refused(400, "another row's", () =>
    decrypted({ ciphertext: bound.data.ciphertext, associated_data: encoded("customers/8") }),
  );
  done("associated data");

  const texts = [0, 1, 2].map((number) => encoded(`number ${number}`));
  const sealed = await vault.write(`transit/encrypt/${dataKey}`, {
    batch_input: texts.map((plaintext) => ({ plaintext })),
  });
  const results = await vault.write(`transit/decrypt/${dataKey}`, {
    batch_input: sealed.data.batch_results.map((each) => ({ ciphertext: each.ciphertext })),
  });
  const plaintexts = results.data.batch_results.map((each) => each.plaintext);
  expect(JSON.stringify(plaintexts) === JSON.stringify(texts), "a batch decrypts in its order");
  done("batch");

  const pair = (await vault.write(`transit/datakey/plaintext/${dataKey}`, {})).data;
  expect(Buffer.from(pair.plaintext, "base64").length === 32, "a data key has 32 bytes");
  const unwrapped = await decrypted({ ciphertext: pair.ciphertext });
  expect(unwrapped === pair.plaintext, "the wrapped data key decrypts to the data key");
  done("data key");

  const input = encoded("pay 10 to Ada");
  const { hmac } = (await vault.write(`transit/hmac/${dataKey}`, { input })).data;
  expect(await valid(dataKey, { input, hmac }), "an HMAC is of its message");
  expect(!(await valid(dataKey, { input: encoded("pay 99 to Ada"), hmac })), "an HMAC is of no other message");
  done("hmac");

  const { signature } = (await vault.write(`transit/sign/${signingKey}`, { input })).data;
  expect(await valid(signingKey, { input, signature }), "a signature is of its message");
  expect(!(await valid(signingKey, { input: secret, signature })), "a signature is of no other message");
  done("sign and verify");

  await vault.write(`transit/keys/${dataKey}/rotate`, {});
  const rewrapped = (await vault.write(`transit/rewrap/${dataKey}`, { ciphertext })).data.ciphertext;
  expect(rewrapped.startsWith("vault:v2:"), "a rewrapped ciphertext names version 2 of the key");
  for (const each of [ciphertext, rewrapped]) {
    expect((await decrypted({ ciphertext: each })) === secret, "both decrypt");
  }
  done("rotate and rewrap");

  await refused(400, "a broken ciphertext", () =>
    decrypted({ ciphertext: `${ciphertext.slice(0, -8)}AAAAAAA=` }),
  );
  await refused(403, "another's key", () => vault.encryptData({ name: foreignKey, plaintext: secret }));
  done("refusals");

  await vault.tokenRevokeSelf();
  await refused(403, "a token that was revoked", () => vault.transitReadKey({ name: dataKey }));
  done("log out");
}

async function decrypted(given) {
  return (await vault.write(`transit/decrypt/${dataKey}`, given)).data.plaintext;
}

async function valid(key, given) {
  return (await vault.write(`transit/verify/${key}`, given)).data.valid;
}

/** Return a text as Transit takes it. */
function encoded(text) {
  return Buffer.from(text).toString("base64");
}

function expect(isSo, what) {
  if (!isSo) throw new Error(`not so: ${what}`);
}

async function refused(status, what, call) {
  try {
    await call();
  } catch (error) {
    if (error.response?.statusCode === status) return;
    throw error;
  }
  throw new Error(`not refused: ${what}`);
}

function done(step) {
  console.log(`ok: ${step}`);
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
