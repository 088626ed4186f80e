// The list of jobs, with their progress.

import { events, sendMessage } from "./api.js";
import { byId, formatCount, element, formatSize, nameElement, visible } from "./format.js";

const POLL_MS = 5000;
const IDLE_POLL_MS = 30_000;
const MAX_JOBS = 20;
const MAX_FOLLOWED = 2; // browsers open six connections to one server: the others remain for files
const rows = new Map();
let timer;

// Show the jobs, and poll for new ones until the token is refused. The listing reports errors.
export async function refreshJobs(report) {
  let hasOpenJobs = false;
  clearTimeout(timer);
  try {
    if (!document.hidden) hasOpenJobs = show((await sendMessage("jobList", { limit: MAX_JOBS })).jobs, report);
  } catch (error) {
    if (error.status === 401) return clearJobs();
  }
  clearTimeout(timer); // another call may have set it meanwhile
  timer = setTimeout(() => refreshJobs(report), hasOpenJobs ? POLL_MS : IDLE_POLL_MS);
}

// Remove the jobs that another token has shown.
export function clearJobs() {
  clearTimeout(timer);
  for (const row of rows.values()) row.stop.abort();
  rows.clear();
  byId("jobs-list").replaceChildren();
  byId("jobs").hidden = true;
}

// Show `jobs`, and return whether one of them is not finished.
function show(jobs, report) {
  byId("jobs").hidden = jobs.length === 0;
  const listed = new Set(jobs.map((job) => job.job));
  for (const [id, row] of rows) {
    if (listed.has(id) || row.isFollowed) continue; // its events report its end
    row.item.remove();
    rows.delete(id);
  }
  for (const job of jobs.toReversed()) {
    const row = rows.get(job.job) ?? newRow(job, report);
    if (row.isFollowed) continue;
    row.show(job);
    const followed = [...rows.values()].filter((each) => each.isFollowed).length;
    if (job.state === "running" && followed < MAX_FOLLOWED) row.follow(); // the others are polled
  }
  return jobs.some(isOpen);
}

const isOpen = (job) => ["queued", "running"].includes(job.state);

// Return the reason why a job failed, or "". The rows of jobList have no reply.
const reasonOf = (job) => job.reply?.msg ?? (["failed", "cancelled"].includes(job.state) ? job.msg : "");

function newRow(job, report) {
  const row = new Row(job, report);
  rows.set(job.job, row);
  byId("jobs-list").prepend(row.item);
  return row;
}

class Row {
  constructor(job, report) {
    this.id = job.job;
    this.report = report;
    this.isFollowed = false;
    this.stop = new AbortController();
    const name = job.jid ?? job.job;
    this.title = `${job.action} ${visible(name)}`;
    this.bar = element("progress", { ariaLabel: this.title });
    this.status = element("span", { className: "status" });
    this.button = element("button", { type: "button", className: "quiet", textContent: "Cancel", ariaLabel: `Cancel: ${this.title}` });
    this.button.onclick = () => this.cancel();
    this.item = element("li", { tabIndex: -1 }, element("span", {}, `${job.action} `, nameElement(name)), this.bar, this.status, this.button);
  }

  show(job) {
    const { files, total, bytes, bytesPerSecond, failed, skipped } = job.progress;
    if (total) Object.assign(this.bar, { max: total, value: files + failed });
    else if (!isOpen(job)) Object.assign(this.bar, { max: 1, value: job.state === "done" ? 1 : 0 });
    const facts = [job.state, total ? `${files + failed} of ${formatCount(total, "file")}` : formatCount(files, "file"), formatSize(bytes)];
    if (isOpen(job) && bytesPerSecond) facts.push(`${formatSize(bytesPerSecond)}/s`);
    if (skipped) facts.push(`${skipped} unchanged`);
    if (failed) facts.push(`${failed} failed`);
    const reason = reasonOf(job);
    if (reason) facts.push(reason);
    this.status.textContent = facts.join(", ");
    if (this.wasOpen && !isOpen(job)) byId("jobs-status").textContent = [`${this.title}: ${job.state}`, reason].filter(Boolean).join(", ");
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
      this.show(await sendMessage("jobCancel", { job: this.id }));
    } catch (error) {
      this.report(error);
    }
  }
}
