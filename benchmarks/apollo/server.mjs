// The documented key service over Apollo Server, as short and as fast as it can be: three of its operations, a private
// key as PEM in its row, Argon2id at Keystead's cost, one metric an operation. It knows a user by a header, asks for
// nothing else, keeps no audit trail, counts no guesses and takes a ciphertext as often as it comes.
//
// PGHOST and the like name its database, WORKERS its processes.

import cluster from "node:cluster";
import { constants, createPrivateKey, generateKeyPair, privateDecrypt, randomBytes, randomUUID } from "node:crypto";
import { availableParallelism } from "node:os";
import { promisify } from "node:util";

import { ApolloServer } from "@apollo/server";
import { startStandaloneServer } from "@apollo/server/standalone";
import { hash, verify } from "@node-rs/argon2";
import pg from "pg";

const LIFETIME_MS = 30 * 24 * 60 * 60 * 1000;
const MAX_SIZE = 2048;
const ARGON2ID = 2;
const COST = { algorithm: ARGON2ID, memoryCost: 19_456, timeCost: 2, parallelism: 1 };
const OPEN_KEYS = 10_000;

const TABLES = `
  CREATE TABLE "ClientEncryptionKey" (
    "id" text PRIMARY KEY,
    "deviceId" text NOT NULL,
    "appVersion" text,
    "publicKey" text NOT NULL,
    "privateKey" text NOT NULL,
    "expiresAt" timestamptz,
    "deprecated" boolean NOT NULL DEFAULT false,
    "usageCount" integer NOT NULL DEFAULT 0,
    "lastUsed" timestamptz,
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now()
  );
  CREATE INDEX ON "ClientEncryptionKey" ("deviceId", "deprecated", "expiresAt");
  CREATE TABLE "EncryptionMetric" (
    "id" text PRIMARY KEY,
    "keyId" text,
    "deviceId" text,
    "operation" text NOT NULL,
    "status" text NOT NULL,
    "errorReason" text,
    "duration" integer NOT NULL,
    "timestamp" timestamptz NOT NULL DEFAULT now()
  );
  CREATE TABLE "UserCredential" ("userId" text PRIMARY KEY, "passcodeHash" text NOT NULL);
`;

const SCHEMA = `
  enum PASSWORD_AUTH_TYPE { PASSCODE TRANSACTION_PIN }
  input ClientIdentityInput { deviceId: String! appVersion: String }
  input EncryptedPasscodeInput { encryptedPasscode: String! keyId: String! passwordAuthType: PASSWORD_AUTH_TYPE! }
  input EncryptedVerifyPasscodeInput { encryptedPasscode: String! keyId: String! passwordAuthType: PASSWORD_AUTH_TYPE! }
  type EncryptionKeyOutput { publicKey: String! keyId: String! }
  type Query { ready: Boolean! }
  type Mutation {
    generateClientEncryptionKey(input: ClientIdentityInput!): EncryptionKeyOutput!
    setUserPasscode(input: EncryptedPasscodeInput!): Boolean!
    verifyUserPasscode(input: EncryptedVerifyPasscodeInput!): Boolean!
  }
`;

// Statements with a name are prepared once a connection.
const FIND_ACTIVE = {
  name: "find-active",
  text: `SELECT "id", "publicKey" FROM "ClientEncryptionKey"
         WHERE "deviceId" = $1 AND NOT "deprecated" AND "expiresAt" > now() ORDER BY "createdAt" DESC LIMIT 1`,
};
const ADD_KEY = {
  name: "add-key",
  text: `INSERT INTO "ClientEncryptionKey" ("id", "deviceId", "appVersion", "publicKey", "privateKey", "expiresAt")
         VALUES ($1, $2, $3, $4, $5, $6)`,
};
const FIND_KEY = {
  name: "find-key",
  text: `SELECT "privateKey", "expiresAt" FROM "ClientEncryptionKey" WHERE "id" = $1`,
};
const SET_HASH = {
  name: "set-hash",
  text: `INSERT INTO "UserCredential" ("userId", "passcodeHash") VALUES ($1, $2)
         ON CONFLICT ("userId") DO UPDATE SET "passcodeHash" = excluded."passcodeHash"`,
};
const FIND_HASH = { name: "find-hash", text: `SELECT "passcodeHash" FROM "UserCredential" WHERE "userId" = $1` };
const ADD_METRIC = {
  name: "add-metric",
  text: `INSERT INTO "EncryptionMetric" ("id", "keyId", "deviceId", "operation", "status", "errorReason", "duration")
         VALUES ($1, $2, $3, $4, $5, $6, $7)`,
};

const makePair = promisify(generateKeyPair);

class Service {
  #pool = new pg.Pool({ max: 10 });
  #open = new Map();

  async generate(deviceId, appVersion) {
    return this.#measured("generate", { deviceId }, async (noted) => {
      const { rows } = await this.#ask(FIND_ACTIVE, [deviceId]);
      if (rows.length > 0) {
        noted.keyId = rows[0].id;
        return { keyId: rows[0].id, publicKey: rows[0].publicKey };
      }
      const { publicKey, privateKey } = await makePair("rsa", {
        modulusLength: 2048,
        publicKeyEncoding: { type: "spki", format: "pem" },
        privateKeyEncoding: { type: "pkcs8", format: "pem" },
      });
      const keyId = `key_${Date.now()}_${randomBytes(12).toString("hex")}`;
      const expiresAt = new Date(Date.now() + LIFETIME_MS);
      await this.#ask(ADD_KEY, [keyId, deviceId, appVersion, publicKey, privateKey, expiresAt]);
      noted.keyId = keyId;
      return { keyId, publicKey };
    });
  }

  async set(userId, { encryptedPasscode, keyId }) {
    const passcode = await this.#decrypt(encryptedPasscode, keyId);
    await this.#ask(SET_HASH, [userId, await hash(passcode, COST)]);
    return true;
  }

  async verify(userId, { encryptedPasscode, keyId }) {
    try {
      const passcode = await this.#decrypt(encryptedPasscode, keyId);
      const { rows } = await this.#ask(FIND_HASH, [userId]);
      return rows.length > 0 && (await verify(rows[0].passcodeHash, passcode));
    } catch {
      return false;
    }
  }

  #decrypt(encrypted, keyId) {
    return this.#measured("decrypt", { keyId }, async () => {
      const bytes = Buffer.from(encrypted, "base64");
      if (bytes.length > MAX_SIZE) {
        throw new Error("Encrypted data size exceeds limit");
      }
      const { rows } = await this.#ask(FIND_KEY, [keyId]);
      if (rows.length === 0) {
        throw new Error("Encryption key not found");
      }
      if (rows[0].expiresAt < new Date()) {
        throw new Error("Encryption key has expired");
      }
      const key = this.#parsed(rows[0].privateKey);
      return privateDecrypt({ key, padding: constants.RSA_PKCS1_OAEP_PADDING }, bytes).toString("utf8");
    });
  }

  #parsed(pem) {
    let key = this.#open.get(pem);
    if (key === undefined) {
      if (this.#open.size >= OPEN_KEYS) {
        this.#open.clear();
      }
      key = createPrivateKey(pem);
      this.#open.set(pem, key);
    }
    return key;
  }

  async #measured(operation, noted, work) {
    const begun = Date.now();
    let reason = null;
    try {
      return await work(noted);
    } catch (error) {
      reason = error.message;
      throw new Error(operation === "decrypt" ? "Failed to decrypt data" : "Failed to generate a key");
    } finally {
      const { keyId = null, deviceId = null } = noted;
      const values = [randomUUID(), keyId, deviceId, operation, reason ? "failure" : "success", reason];
      await this.#ask(ADD_METRIC, [...values, Date.now() - begun]).catch(console.error);
    }
  }

  #ask(statement, values) {
    return this.#pool.query({ ...statement, values });
  }
}

async function serve() {
  const service = new Service();
  const server = new ApolloServer({
    typeDefs: SCHEMA,
    resolvers: {
      Query: { ready: () => true },
      Mutation: {
        generateClientEncryptionKey: (_, { input }) => service.generate(input.deviceId, input.appVersion),
        setUserPasscode: (_, { input }, { user }) => service.set(user, input),
        verifyUserPasscode: (_, { input }, { user }) => service.verify(user, input),
      },
    },
    introspection: false,
  });
  const context = async ({ req }) => ({ user: req.headers["x-user"] });
  const { url } = await startStandaloneServer(server, { context, listen: { host: "127.0.0.1", port: 0 } });
  process.send({ url });
}

async function start() {
  const client = new pg.Client();
  await client.connect();
  await client.query(TABLES);
  await client.end();
  const workers = Number(process.env.WORKERS ?? availableParallelism());
  let waiting = workers;
  // The port is any that is free, and one for all workers.
  cluster.on("message", (_, { url }) => {
    waiting -= 1;
    if (waiting === 0) {
      console.log(`running on ${url}`);
    }
  });
  cluster.on("exit", () => process.exit(1));
  for (let number = 0; number < workers; number += 1) {
    cluster.fork();
  }
}

await (cluster.isPrimary ? start() : serve());
