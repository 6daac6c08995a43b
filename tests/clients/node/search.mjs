// A search frontend that has no stubs: it finds the services by reflection, then searches.
// Usage: node search.mjs HOST:PORT SURFACE QUERY USER      Prints one JSON object.
import * as grpc from "@grpc/grpc-js";
import reflection from "grpc-js-reflection-client";

const [target, surface, query, userId] = process.argv.slice(2);
const credentials = grpc.credentials.createInsecure();
const client = new reflection.GrpcReflection(target, credentials);

const services = await client.listServices();
const descriptor = await client.getDescriptorBySymbol("headrace.v1.SearchService");
const { headrace } = descriptor.getPackageObject({ keepCase: true, longs: Number, defaults: true });
const search = new headrace.v1.SearchService(target, credentials);

const request = { surface, query, user_id: userId, page_size: 5, explain: false };
search.Search(request, { deadline: Date.now() + 5000 }, (error, response) => {
  if (error) {
    console.log(JSON.stringify({ services, code: error.code, details: error.details }));
    process.exit(1);
  }
  // What is learnt by reflection shows a map as a list of its entries.
  const items = response.items.map(({ item_id, score, attributes }) => ({
    item_id,
    score,
    attributes: Object.fromEntries(attributes.map(({ key, value }) => [key, value])),
  }));
  console.log(JSON.stringify({ services, items, gate: response.gate, coverage: response.coverage }));
  process.exit(0);
});
