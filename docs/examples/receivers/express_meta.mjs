import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import express from "express";

const secret = readFileSync(process.argv[3], "utf8").split("\n")[0].trim(); // what Meta calls the app secret
const app = express();
app.post("/webhook", express.raw({ type: () => true, limit: "4mb" }), (req, res) => {
  const hmac = createHmac("sha256", secret).update(req.body ?? ""); // the raw body
  const expected = Buffer.from("sha256=" + hmac.digest("hex"));
  const actual = Buffer.from(req.get("X-Hub-Signature-256") ?? "");
  if (actual.length !== expected.length || !timingSafeEqual(actual, expected)) return res.sendStatus(401);
  const { field, value } = JSON.parse(req.body).entry[0].changes[0]; // exactly one update
  console.log("got", field, JSON.stringify(value));
  res.sendStatus(200);
});
app.listen(Number(process.argv[2]), "127.0.0.1");
