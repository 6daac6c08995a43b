// Tells what a user did. An event counts once, so that a call without an answer is simply made again.
// Usage: node record.mjs HOST:PORT USER ITEM ACTION EVENT_ID
// Prints one JSON object; headrace.mjs says what it takes from the environment.
import { call, connect, print } from "./headrace.mjs";

const [target, userId, itemId, action, eventId] = process.argv.slice(2);
const UNAVAILABLE = 14;

await print(async () => {
  const { client } = await connect(target, "EventService");
  const now = Date.now();
  const timestamp = { seconds: Math.floor(now / 1000), nanos: (now % 1000) * 1e6 };
  const events = [{ event_id: eventId, user_id: userId, item_id: itemId, action, timestamp }];
  const record = () => call(client, "RecordEvents", { events }, 5000);
  return record().catch((error) => (error.code === UNAVAILABLE ? record() : Promise.reject(error)));
});
