// A device made of AWS's own client code, against localiot: it provisions by
// claim, carries out a job, and uses a named shadow. Its one argument is JSON:
// {host, port, ca, claimCertificate, claimKey, csr, key, certificate, template,
// thing, mqtt5}; certificate is the path to write to. It prints a word a line:
// "ready" when a job may be created, "done" at the end; an error ends it.
const fs = require("fs");
const assert = require("assert");
const { once } = require("events");
const { iot, iotidentity, iotjobs, iotshadow, mqtt, mqtt5 } = require("aws-iot-device-sdk-v2");

const arg = JSON.parse(process.argv[2]);
const options = { maxRequestResponseSubscriptions: 10, maxStreamingSubscriptions: 5, operationTimeoutInSeconds: 10 };

// connect returns {of, stop}: of makes a service client on the session.
async function connect(certificate, key, clientId) {
  if (arg.mqtt5) {
    const builder = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath(arg.host, certificate, key);
    builder.withPort(arg.port).withCertificateAuthorityFromPath(undefined, arg.ca).withConnectProperties({ clientId, keepAliveIntervalSeconds: 60 });
    const client = new mqtt5.Mqtt5Client(builder.build());
    const up = once(client, "connectionSuccess");
    const failed = once(client, "connectionFailure").then(([e]) => { throw new Error("connection: " + e.error); });
    failed.catch(() => {});
    client.start();
    await Promise.race([up, failed]);
    return { of: (c) => c.newFromMqtt5(client, options), stop: async () => { const down = once(client, "stopped"); client.stop(); await down; client.close(); } };
  }
  const config = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(certificate, key)
    .with_certificate_authority_from_path(undefined, arg.ca).with_endpoint(arg.host).with_port(arg.port)
    .with_client_id(clientId).with_clean_session(true).with_keep_alive_seconds(60).build();
  const connection = new mqtt.MqttClient().new_connection(config);
  await connection.connect();
  return { of: (c) => c.newFromMqtt311(connection, options), stop: () => connection.disconnect() };
}

// rejected is the service's error that a request has to end with.
async function rejected(request) {
  try {
    await request;
  } catch (e) {
    assert(e.modeledError, "not the service's error: " + e + " " + e.internalError);
    return e.modeledError;
  }
  assert.fail("not rejected");
}

// listen opens a stream; next takes its messages one by one.
async function listen(stream) {
  const messages = [], waiting = [];
  stream.on("incomingPublish", (e) => (waiting.length ? waiting.shift()(e.message) : messages.push(e.message)));
  stream.on("incomingPublishError", (e) => { throw e.error; });
  const up = once(stream, "subscriptionStatus");
  stream.open();
  const [status] = await up;
  assert.ifError(status.error);
  return { next: () => (messages.length ? messages.shift() : new Promise((resolve) => waiting.push(resolve))), close: () => stream.close() };
}

async function provision() {
  const session = await connect(arg.claimCertificate, arg.claimKey, "claim-" + arg.thing);
  const identity = session.of(iotidentity.IotIdentityClientv2);
  const bad = await rejected(identity.createCertificateFromCsr({ certificateSigningRequest: "none" }));
  assert.equal(bad.statusCode, 400);
  assert(bad.errorCode && bad.errorMessage);
  const made = await identity.createCertificateFromCsr({ certificateSigningRequest: fs.readFileSync(arg.csr, "utf8") });
  assert.match(made.certificateId, /^[0-9a-f]{64}$/);
  const request = { templateName: arg.template, certificateOwnershipToken: made.certificateOwnershipToken, parameters: { ThingName: arg.thing } };
  const wrong = await rejected(identity.registerThing({ ...request, certificateOwnershipToken: "x" }));
  assert.equal(wrong.errorCode, "InvalidCertificateOwnershipToken");
  const registered = await identity.registerThing(request);
  assert.equal(registered.thingName, arg.thing);
  assert(registered.deviceConfiguration);
  fs.writeFileSync(arg.certificate, made.certificatePem);
  identity.close();
  await session.stop();
}

async function jobs(session) {
  const thingName = arg.thing;
  const client = session.of(iotjobs.IotJobsClientv2);
  const next = await listen(client.createNextJobExecutionChangedStream({ thingName }));
  const list = await listen(client.createJobExecutionsChangedStream({ thingName }));
  const none = await client.startNextPendingJobExecution({ thingName });
  assert.equal(none.execution, undefined);
  console.log("ready");
  const told = await next.next();
  assert.equal(told.execution.status, "QUEUED");
  assert(Math.abs(told.timestamp * 1000 - Date.now()) < 60000); // the client says Date and gives the number
  const jobId = told.execution.jobId;
  assert.equal((await list.next()).jobs.QUEUED[0].jobId, jobId);
  const pending = await client.getPendingJobExecutions({ thingName });
  assert.equal(pending.queuedJobs[0].jobId, jobId);
  assert.equal(pending.inProgressJobs.length, 0);
  assert.equal((await client.describeJobExecution({ thingName, jobId: "$next" })).execution.jobDocument.operation, "keyvet.check");
  const started = await client.startNextPendingJobExecution({ thingName, stepTimeoutInMinutes: 5, statusDetails: { step: "start" } });
  let version = started.execution.versionNumber;
  assert.deepEqual(started.execution.jobDocument, told.execution.jobDocument);
  const stale = await rejected(client.updateJobExecution({ thingName, jobId, status: "IN_PROGRESS", expectedVersion: version + 7 }));
  assert.equal(stale.code, "VersionMismatch");
  assert.equal(stale.executionState.versionNumber, version);
  const updated = await client.updateJobExecution({
    thingName, jobId, status: "IN_PROGRESS", expectedVersion: version, statusDetails: { step: "check" }, includeJobExecutionState: true, includeJobDocument: true,
  });
  assert.equal(updated.executionState.versionNumber, ++version);
  assert.equal(updated.executionState.statusDetails.step, "check");
  assert.equal(updated.jobDocument.operation, "keyvet.check");
  await client.updateJobExecution({ thingName, jobId, status: "SUCCEEDED", expectedVersion: version, statusDetails: { step: "end" } });
  assert.equal((await next.next()).execution, undefined);
  const late = await rejected(client.updateJobExecution({ thingName, jobId, status: "IN_PROGRESS" }));
  assert.equal(late.code, "InvalidStateTransition");
  assert.equal(late.executionState.status, "SUCCEEDED");
  assert.equal((await rejected(client.describeJobExecution({ thingName, jobId }))).code, "TerminalStateReached");
  assert.equal((await rejected(client.describeJobExecution({ thingName, jobId: "none" }))).code, "ResourceNotFound");
  next.close();
  list.close();
  client.close();
}

async function shadow(session) {
  const of = { thingName: arg.thing, shadowName: "keyvet" };
  const client = session.of(iotshadow.IotShadowClientv2);
  const deltas = await listen(client.createNamedShadowDeltaUpdatedStream(of));
  const documents = await listen(client.createNamedShadowUpdatedStream(of));
  assert.equal((await rejected(client.getNamedShadow(of))).code, 404);
  const first = await client.updateNamedShadow({ ...of, state: { reported: { gate: "shut" }, desired: { check: "1" } } });
  assert.equal(first.version, 1);
  assert.equal((await deltas.next()).state.check, "1");
  assert.equal((await documents.next()).current.state.reported.gate, "shut");
  assert.equal((await rejected(client.updateNamedShadow({ ...of, state: { reported: {} }, version: 7 }))).code, 409);
  await client.updateNamedShadow({ ...of, state: { reported: { check: "1", gate: null } }, version: first.version });
  const got = await client.getNamedShadow(of);
  assert.deepEqual({ ...got.state.reported }, { check: "1" });
  assert.equal(got.state.delta, undefined);
  assert.equal((await client.deleteNamedShadow(of)).version, 2);
  assert.equal((await rejected(client.getNamedShadow(of))).code, 404);
  await client.updateShadow({ thingName: arg.thing, state: { reported: { sdk: arg.mqtt5 ? "5" : "3.1.1" } } });
  deltas.close();
  documents.close();
  client.close();
}

(async () => {
  await provision();
  const session = await connect(arg.certificate, arg.key, arg.thing);
  await jobs(session);
  await shadow(session);
  await session.stop();
  console.log("done");
  process.exit(0);
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
