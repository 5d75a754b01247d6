import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import express from "express";

const secrets = readFileSync(process.argv[3], "utf8").split("\n").map((line) => line.trim()).filter(Boolean);
const isSigned = (body, actual) => secrets.some((secret) => {
  const expected = Buffer.from("sha256=" + createHmac("sha256", secret).update(body).digest("hex"));
  return actual.length === expected.length && timingSafeEqual(actual, expected);
});
const app = express();
app.post("/webhook", express.raw({ type: () => true, limit: "4mb" }), (req, res) => {
  const actual = Buffer.from(req.get("X-Hub-Signature-256") ?? "");
  if (!isSigned(req.body ?? "", actual)) return res.sendStatus(401); // the raw body
  const { field, value } = JSON.parse(req.body).entry[0].changes[0]; // exactly one update
  const update = (value.messages ?? value.statuses ?? [value])[0];
  console.log("got", field, JSON.stringify(update).slice(0, 120));
  res.sendStatus(200);
});
app.listen(Number(process.argv[2]), "127.0.0.1");
