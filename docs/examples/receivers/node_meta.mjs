import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const secrets = readFileSync(process.argv[3], "utf8").split("\n").map((line) => line.trim()).filter(Boolean);
const isSigned = (body, actual) => secrets.some((secret) => {
  const expected = Buffer.from("sha256=" + createHmac("sha256", secret).update(body).digest("hex"));
  return actual.length === expected.length && timingSafeEqual(actual, expected);
});
createServer(async (req, res) => {
  const body = Buffer.concat(await req.toArray()); // the raw body
  const actual = Buffer.from(req.headers["x-hub-signature-256"] ?? "");
  if (!isSigned(body, actual)) return res.writeHead(401).end();
  const { field, value } = JSON.parse(body).entry[0].changes[0]; // exactly one update
  const update = (value.messages ?? value.statuses ?? [value])[0];
  console.log("got", field, JSON.stringify(update).slice(0, 120));
  res.writeHead(200).end();
}).listen(Number(process.argv[2]), "127.0.0.1");
