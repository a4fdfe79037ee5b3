// Send mails by Nodemailer, pooled: node send_by_nodemailer.js PORT SIZE CONNECTIONS [CERTIFICATE]
// Reads the mail to send from standard input as JSON: sender, subject, text, html. Prints what it took as JSON.
"use strict";

const fs = require("fs");
const nodemailer = require("nodemailer");

const [port, size, connections, certificate] = process.argv.slice(2);
const mail = JSON.parse(fs.readFileSync(0, "utf8"));
const transport = nodemailer.createTransport({
  host: "127.0.0.1",
  port: Number(port),
  secure: false,
  pool: true,
  maxConnections: Number(connections),
  maxMessages: Infinity,
  ...(certificate ? { requireTLS: true, tls: { ca: fs.readFileSync(certificate) } } : { ignoreTLS: true }),
});

function named(text, number) {
  return text.replaceAll("Ada Example", `Ada ${number}`);
}

async function main() {
  const began = process.hrtime.bigint();
  const before = process.cpuUsage();
  let next = 0;
  // As many at once as keep all connections busy, not all of them: each waiting mail takes memory.
  async function work() {
    while (next < Number(size)) {
      const number = next++;
      await transport.sendMail({
        from: mail.sender,
        to: `user${number}@example.com`,
        subject: named(mail.subject, number),
        text: named(mail.text, number),
        html: named(mail.html, number),
      });
    }
  }
  await Promise.all(Array.from({ length: 4 * Number(connections) }, work));
  const spent = process.cpuUsage(before);
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  transport.close();
  console.log(JSON.stringify({ mails: next, seconds, cpu_seconds: (spent.user + spent.system) / 1e6 }));
}

main();
