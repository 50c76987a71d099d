// A program that knows nothing of us: calls KMS with the AWS SDK for JavaScript, as its
// environment says, and prints what came of it as JSON.
//
//     node kms_calls.js SYMMETRIC_KEY AGREEMENT_KEY
//
// Credentials, region and endpoint come from the SDK's default chain: AWS_REGION,
// AWS_ENDPOINT_URL_KMS, AWS_ACCESS_KEY_ID and so on; NODE_EXTRA_CA_CERTS for a test authority.
"use strict";

const crypto = require("node:crypto");
const {
    KMSClient,
    DecryptCommand,
    DeriveSharedSecretCommand,
    EncryptCommand,
    GenerateDataKeyCommand,
    GenerateDataKeyPairCommand,
    GenerateRandomCommand,
    ListKeysCommand,
} = require("@aws-sdk/client-kms");

const [symmetric, agreement] = process.argv.slice(2);
const context = { purpose: "test", language: "JavaScript" };
const secret = Buffer.from("a secret of a program in JavaScript");
const client = new KMSClient({ maxAttempts: 1 });

async function keys() {
    const answer = await client.send(new ListKeysCommand({}));
    return answer.Keys.map((key) => key.KeyArn);
}

async function decrypted() {
    const sealed = await client.send(
        new EncryptCommand({ KeyId: symmetric, Plaintext: secret, EncryptionContext: context }),
    );
    const opened = await client.send(
        new DecryptCommand({ CiphertextBlob: sealed.CiphertextBlob, EncryptionContext: context }),
    );
    return Buffer.from(opened.Plaintext).equals(secret) && opened.KeyId === sealed.KeyId;
}

// Opens what a call sealed, to see that it is what the call gave in plain.
async function isOpenedTo(sealed, plaintext) {
    const opened = await client.send(new DecryptCommand({ CiphertextBlob: sealed }));
    return Buffer.from(opened.Plaintext).equals(Buffer.from(plaintext));
}

async function dataKey() {
    const made = await client.send(
        new GenerateDataKeyCommand({ KeyId: symmetric, KeySpec: "AES_256" }),
    );
    return made.Plaintext.length === 32 && isOpenedTo(made.CiphertextBlob, made.Plaintext);
}

async function dataKeyPair() {
    const made = await client.send(
        new GenerateDataKeyPairCommand({ KeyId: symmetric, KeyPairSpec: "ECC_NIST_P256" }),
    );
    const key = crypto.createPrivateKey({
        key: Buffer.from(made.PrivateKeyPlaintext),
        format: "der",
        type: "pkcs8",
    });
    const own = crypto.createPublicKey(key).export({ format: "der", type: "spki" });
    return (
        own.equals(Buffer.from(made.PublicKey)) &&
        isOpenedTo(made.PrivateKeyCiphertextBlob, made.PrivateKeyPlaintext)
    );
}

async function random() {
    const answer = await client.send(new GenerateRandomCommand({ NumberOfBytes: 32 }));
    return answer.Plaintext.length === 32;
}

// Two answers for the same public key are the same secret.
async function sharedSecret() {
    const { publicKey } = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
    const call = {
        KeyId: agreement,
        KeyAgreementAlgorithm: "ECDH",
        PublicKey: publicKey.export({ format: "der", type: "spki" }),
    };
    const first = await client.send(new DeriveSharedSecretCommand(call));
    const second = await client.send(new DeriveSharedSecretCommand(call));
    return (
        first.SharedSecret.length === 32 &&
        Buffer.from(first.SharedSecret).equals(Buffer.from(second.SharedSecret))
    );
}

async function main() {
    const outcome = { node: process.version };
    const calls = { keys, decrypted, dataKey, dataKeyPair, random, sharedSecret };
    for (const [name, call] of Object.entries(calls)) {
        try {
            outcome[name] = await call();
        } catch (error) {
            outcome[name] = `${error.name}: ${error.message}`;
        }
    }
    client.destroy();
    console.log(JSON.stringify(outcome));
}

main();
