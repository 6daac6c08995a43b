// What both programs share: services found by reflection, calls with a deadline and the caller's token.
import * as grpc from "@grpc/grpc-js";
import reflection from "grpc-js-reflection-client";

const token = process.env.HEADRACE_TOKEN;

// Returns the client of a service of HOST:PORT, and the names of all services there.
export async function connect(target, service) {
  const credentials = grpc.credentials.createInsecure();
  const finder = new reflection.GrpcReflection(target, credentials);
  const services = await finder.listServices();
  const descriptor = await finder.getDescriptorBySymbol(`headrace.v1.${service}`);
  const { headrace } = descriptor.getPackageObject({ keepCase: true, longs: Number, defaults: true });
  return { services, client: new headrace.v1[service](target, credentials) };
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
