// What both programs share: services, calls with a deadline, and who the caller is.
//   HEADRACE_PROTOS  folder of the .proto files; without it services are found by reflection, which a cluster with rules
//                    of access describes to operators only
//   HEADRACE_TOKEN   the caller's token
//   HEADRACE_TLS     folder with ca.pem, client.pem and client-key.pem
import { readFileSync } from "node:fs";
import * as grpc from "@grpc/grpc-js";
import * as protoLoader from "@grpc/proto-loader";
import reflection from "grpc-js-reflection-client";

const { HEADRACE_PROTOS: protos, HEADRACE_TOKEN: token, HEADRACE_TLS: tls } = process.env;
const SHAPE = { keepCase: true, longs: Number, defaults: true };

function credentials() {
  if (!tls) return grpc.credentials.createInsecure();
  const [ca, key, certificate] = ["ca", "client-key", "client"].map((name) => readFileSync(`${tls}/${name}.pem`));
  return grpc.credentials.createSsl(ca, key, certificate);
}

async function described(target, service) {
  if (protos) {
    const file = service.replace(/([a-z])([A-Z])/g, "$1_$2").toLowerCase();
    const definition = protoLoader.loadSync(`headrace/v1/${file}.proto`, { ...SHAPE, includeDirs: [protos] });
    return { services: [`headrace.v1.${service}`], root: grpc.loadPackageDefinition(definition) };
  }
  const finder = new reflection.GrpcReflection(target, credentials());
  const services = await finder.listServices();
  const descriptor = await finder.getDescriptorBySymbol(`headrace.v1.${service}`);
  return { services, root: descriptor.getPackageObject(SHAPE) };
}

// Returns the client of a service of HOST:PORT, and the names of the services that are known there.
export async function connect(target, service) {
  const { services, root } = await described(target, service);
  // Certificates are for a role and not for a host: docs/access.md.
  const options = tls ? { "grpc.ssl_target_name_override": "router.headrace" } : {};
  return { services, client: new root.headrace.v1[service](target, credentials(), options) };
}

// Resolves to the response; rejects with an error that has `code` and `details`.
export function call(client, method, request, timeoutMs) {
  const metadata = new grpc.Metadata();
  if (token) metadata.set("authorization", `Bearer ${token}`);
  return new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline: Date.now() + timeoutMs }, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

// Prints what the work returns as one JSON object, or the status that it failed with; sets the exit code.
export async function print(work) {
  try {
    console.log(JSON.stringify(await work()));
  } catch ({ code, details, message }) {
    console.log(JSON.stringify({ code, details: details ?? message }));
    process.exitCode = 1;
  }
  process.exit();
}
