// What the server works off by itself: each job with its progress, as it happens.

import { events, sent } from "./api.js";
import { at, count, element, inBytes, named } from "./words.js";

const ASKED_EVERY = 5000;
const SHOWN = 20;
const FOLLOWED = 2; // each takes one of the six connections that a browser has for a server
const rows = new Map();

// Look for jobs now and then, for as long as the page is open. A server without jobs, or a token
// that may not see them, has none to show.
export async function watch(report) {
  for (;;) {
    if (!document.hidden) await look(report);
    await new Promise((resolve) => setTimeout(resolve, ASKED_EVERY));
  }
}

export async function look(report) {
  let reply;
  try {
    reply = await sent("jobList", { limit: SHOWN });
  } catch {
    return; // the listing tells what is wrong with the server or the token
  }
  at("jobs").hidden = reply.jobs.length === 0;
  for (const job of reply.jobs.toReversed()) {
    const row = rows.get(job.job) ?? newRow(job, report);
    if (row.isFollowed) continue;
    row.show(job);
    const followed = [...rows.values()].filter((each) => each.isFollowed).length;
    if (job.state === "running" && followed < FOLLOWED) row.follow(); // the others are looked at now and then
  }
}

const isOpen = (job) => ["queued", "running"].includes(job.state);

function newRow(job, report) {
  const row = new Row(job, report);
  rows.set(job.job, row);
  at("jobs-list").prepend(row.item);
  return row;
}

class Row {
  constructor(job, report) {
    this.id = job.job;
    this.report = report;
    this.isFollowed = false;
    const name = job.jid ?? job.job;
    this.bar = element("progress", { ariaLabel: `Job ${name}` });
    this.said = element("span", { className: "said" });
    this.button = element("button", { type: "button", className: "quiet", textContent: "Cancel", ariaLabel: `Cancel: ${name}` });
    this.button.onclick = () => this.cancel();
    this.item = element("li", {}, element("span", {}, `${job.action} `, named(name)), this.bar, this.said, this.button);
  }

  show(job) {
    const { files, total, bytes, bytesPerSecond, failed, skipped } = job.progress;
    if (total) Object.assign(this.bar, { max: total, value: files + failed });
    else if (!isOpen(job)) Object.assign(this.bar, { max: 1, value: job.state === "done" ? 1 : 0 });
    const facts = [job.state, total ? `${files + failed} of ${count(total, "file")}` : count(files, "file"), inBytes(bytes)];
    if (isOpen(job) && bytesPerSecond) facts.push(`${inBytes(bytesPerSecond)}/s`);
    if (skipped) facts.push(`${skipped} unchanged`);
    if (failed) facts.push(`${failed} failed`);
    if (job.reply?.msg) facts.push(job.reply.msg);
    this.said.textContent = facts.join(", ");
    this.button.hidden = !isOpen(job);
  }

  async follow() {
    this.isFollowed = true;
    try {
      for await (const job of events(this.id)) this.show(job);
    } catch (error) {
      if (error.status) this.report(error);
    } finally {
      this.isFollowed = false;
    }
  }

  async cancel() {
    try {
      this.show(await sent("jobCancel", { job: this.id }));
    } catch (error) {
      this.report(error);
    }
  }
}
