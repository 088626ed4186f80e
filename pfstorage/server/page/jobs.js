// What the server works off by itself: each job with its progress, as it happens.

import { events, sent } from "./api.js";
import { at, count, element, inBytes, named, shown } from "./words.js";

const ASKED_EVERY = 5000;
const ASKED_IDLY_EVERY = 30_000;
const SHOWN = 20;
const FOLLOWED = 2; // of the six connections that a browser opens to one server, the others are for files
const rows = new Map();
let timer;

// Show the jobs, and look for more now and then, until the token is refused: the listing tells of
// that, and of what else is wrong.
export async function look(report) {
  let isSoon = false;
  clearTimeout(timer);
  try {
    if (!document.hidden) isSoon = show((await sent("jobList", { limit: SHOWN })).jobs, report);
  } catch (error) {
    if (error.status === 401) return forget();
  }
  clearTimeout(timer); // somebody else may have looked meanwhile
  timer = setTimeout(() => look(report), isSoon ? ASKED_EVERY : ASKED_IDLY_EVERY);
}

// Forget the jobs that another token has shown.
export function forget() {
  clearTimeout(timer);
  for (const row of rows.values()) row.stop.abort();
  rows.clear();
  at("jobs-list").replaceChildren();
  at("jobs").hidden = true;
}

// Tell whether one is not over yet.
function show(jobs, report) {
  at("jobs").hidden = jobs.length === 0;
  const listed = new Set(jobs.map((job) => job.job));
  for (const [id, row] of rows) {
    if (listed.has(id) || row.isFollowed) continue; // who is followed tells its end by itself
    row.item.remove();
    rows.delete(id);
  }
  for (const job of jobs.toReversed()) {
    const row = rows.get(job.job) ?? newRow(job, report);
    if (row.isFollowed) continue;
    row.show(job);
    const followed = [...rows.values()].filter((each) => each.isFollowed).length;
    if (job.state === "running" && followed < FOLLOWED) row.follow(); // at the others it looks now and then
  }
  return jobs.some(isOpen);
}

const isOpen = (job) => ["queued", "running"].includes(job.state);

// Why a job has not done what it was to do. A list has no replies; a job that is done has no reason.
const reasonOf = (job) => job.reply?.msg ?? (["failed", "cancelled"].includes(job.state) ? job.msg : "");

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
    this.stop = new AbortController();
    const name = job.jid ?? job.job;
    this.title = `${job.action} ${shown(name)}`;
    this.bar = element("progress", { ariaLabel: this.title });
    this.said = element("span", { className: "said" });
    this.button = element("button", { type: "button", className: "quiet", textContent: "Cancel", ariaLabel: `Cancel: ${this.title}` });
    this.button.onclick = () => this.cancel();
    this.item = element("li", { tabIndex: -1 }, element("span", {}, `${job.action} `, named(name)), this.bar, this.said, this.button);
  }

  show(job) {
    const { files, total, bytes, bytesPerSecond, failed, skipped } = job.progress;
    if (total) Object.assign(this.bar, { max: total, value: files + failed });
    else if (!isOpen(job)) Object.assign(this.bar, { max: 1, value: job.state === "done" ? 1 : 0 });
    const facts = [job.state, total ? `${files + failed} of ${count(total, "file")}` : count(files, "file"), inBytes(bytes)];
    if (isOpen(job) && bytesPerSecond) facts.push(`${inBytes(bytesPerSecond)}/s`);
    if (skipped) facts.push(`${skipped} unchanged`);
    if (failed) facts.push(`${failed} failed`);
    const reason = reasonOf(job);
    if (reason) facts.push(reason);
    this.said.textContent = facts.join(", ");
    if (this.wasOpen && !isOpen(job)) at("jobs-status").textContent = [`${this.title}: ${job.state}`, reason].filter(Boolean).join(", ");
    if (!isOpen(job) && document.activeElement === this.button) this.item.focus();
    this.button.hidden = !isOpen(job);
    this.wasOpen = isOpen(job);
  }

  async follow() {
    this.isFollowed = true;
    try {
      for await (const job of events(this.id, this.stop.signal)) this.show(job);
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
