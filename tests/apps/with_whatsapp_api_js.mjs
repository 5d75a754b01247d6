// A WhatsApp application as in whatsapp-api-js' documentation; usage: with_whatsapp_api_js.mjs PORT APP_SECRET
import { createServer } from "node:http";
import { WhatsAppAPI } from "whatsapp-api-js/middleware/node-http";

const wa = new WhatsAppAPI({ token: "a token", appSecret: process.argv[3], webhookVerifyToken: "a verify token" });
wa.on.message = ({ from, message }) => console.log("message", message.id, from, message.text?.body);
wa.on.status = ({ id, status }) => console.log("status", id, status);
createServer(async (req, res) => {
  res.statusCode = await wa.handle_post(req);
  res.end();
}).listen(Number(process.argv[2]), "127.0.0.1");
