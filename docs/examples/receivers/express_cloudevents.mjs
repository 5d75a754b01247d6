import { readFileSync } from "node:fs";
import express from "express";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(readFileSync(process.argv[3], "utf8").split("\n")[0].trim());
const app = express();
app.post("/webhook", express.raw({ type: () => true, limit: "4mb" }), (req, res) => {
  const body = String(req.body ?? ""); // the raw body
  try { webhook.verify(body, req.headers); } catch { return res.sendStatus(401); }
  console.log("got", req.get("ce-type"), req.get("ce-id")); // `body` has the update
  res.sendStatus(204);
});
app.listen(Number(process.argv[2]), "127.0.0.1");
