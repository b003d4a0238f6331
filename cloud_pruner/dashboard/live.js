"use strict";
// Keeps the figures of the fleet page as they are, from the service's own events.
{
  const note = document.querySelector("[data-live]");
  const show = (totals) => {
    const bars = [...document.querySelectorAll("[data-share]")];
    const all = bars.reduce((sum, bar) => sum + (totals[bar.dataset.share] ?? 0), 0);
    for (const element of document.querySelectorAll("[data-total]")) {
      element.textContent = Math.round(totals[element.dataset.total] ?? 0).toLocaleString("en");
    }
    for (const bar of bars) {
      const share = all ? (totals[bar.dataset.share] ?? 0) / all : 0;
      bar.setAttribute("width", (100 * share).toFixed(2));
      document.querySelector(`[data-percent="${bar.dataset.share}"]`).textContent = `${(100 * share).toFixed(1)} %`;
    }
  };
  const events = new EventSource("/live");
  let silence = 0;
  events.onmessage = (event) => {
    clearTimeout(silence);
    silence = 0;
    show(JSON.parse(event.data));
    note.textContent = "Live.";
  };
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) {
      clearTimeout(silence);
      note.textContent = "No longer live: load the page again.";
      return;
    }
    // The service ends each stream after a while, and is asked again a second later.
    silence ||= setTimeout(() => {
      note.textContent = "Not live now: the service does not answer.";
    }, 3000);
  };
}
