// A search frontend that has no stubs: it finds the services by reflection, then searches.
// Usage: node search.mjs HOST:PORT SURFACE QUERY USER      Prints one JSON object. The token is in HEADRACE_TOKEN.
import { call, connect, print } from "./headrace.mjs";

const [target, surface, query, userId] = process.argv.slice(2);

await print(async () => {
  const { services, client } = await connect(target, "SearchService");
  const request = { surface, query, user_id: userId, page_size: 5, explain: false };
  const { items, gate, coverage } = await call(client, "Search", request, 5000);
  return {
    services,
    // What is learnt by reflection shows a map as a list of its entries.
    items: items.map(({ item_id, score, attributes }) => ({
      item_id,
      score,
      attributes: Object.fromEntries(attributes.map(({ key, value }) => [key, value])),
    })),
    gate,
    coverage,
  };
});
