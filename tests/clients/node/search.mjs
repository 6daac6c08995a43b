// A search frontend without generated stubs. Usage: node search.mjs HOST:PORT SURFACE QUERY USER
// Prints one JSON object; headrace.mjs says what it takes from the environment.
import { call, connect, print } from "./headrace.mjs";

// What is learnt by reflection shows a map as a list of its entries.
const asObject = (map) =>
  Array.isArray(map) ? Object.fromEntries(map.map(({ key, value }) => [key, value])) : map;

const [target, surface, query, userId] = process.argv.slice(2);

await print(async () => {
  const { services, client } = await connect(target, "SearchService");
  const request = { surface, query, user_id: userId, page_size: 5, explain: false };
  const { items, gate, coverage } = await call(client, "Search", request, 5000);
  return {
    services,
    items: items.map(({ item_id, score, attributes }) => ({
      item_id,
      score,
      attributes: asObject(attributes),
    })),
    gate,
    coverage,
  };
});
