import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(readFileSync(process.argv[3], "utf8").split("\n")[0].trim());
createServer(async (req, res) => {
  const body = Buffer.concat(await req.toArray()).toString(); // the raw body
  try { webhook.verify(body, req.headers); } catch { return res.writeHead(401).end(); }
  console.log("got", req.headers["ce-type"], req.headers["ce-id"]); // `body` has the update
  res.writeHead(204).end();
}).listen(Number(process.argv[2]), "127.0.0.1");
