"use strict";
// Asks for a cut as soon as a wish changes, one at a time, and shows the answer in place; lets the list be filtered.
{
  const form = document.getElementById("wish");
  const status = document.getElementById("status");
  const choices = [...form.querySelectorAll(".choices li")];
  const weightOf = (choice) => choice.querySelector("input[type=number]");
  const boxOf = (choice) => choice.querySelector("input[type=checkbox]");
  let asking = false;
  let again = false;

  const address = () => {
    const fields = new FormData(form);
    for (const [name, value] of [...fields]) if (name.startsWith("weight.") && value === "") fields.delete(name);
    return `${form.action}?${new URLSearchParams(fields)}`;
  };

  const ask = async () => {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    const result = document.getElementById("result");
    result.setAttribute("aria-busy", "true");
    status.textContent = "Working …";
    const wished = address();
    try {
      const response = await fetch(wished);
      if (response.redirected) {
        location.assign(response.url); // to sign in again
        return;
      }
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const fresh = page.getElementById("result");
      if (!fresh) throw new Error("no result");
      result.replaceChildren(...fresh.childNodes);
      status.textContent = page.getElementById("status").textContent;
      history.replaceState(null, "", wished);
    } catch {
      status.textContent = "The service did not answer: try again.";
    } finally {
      result.removeAttribute("aria-busy");
      asking = false;
    }
    if (again) {
      again = false;
      await ask();
    }
  };

  const allowWeights = () => {
    for (const choice of choices) weightOf(choice).disabled = !boxOf(choice).checked;
  };
  allowWeights(); // a browser that comes back to this page restores the boxes

  let waiting;
  form.addEventListener("change", (event) => {
    if (event.target.id === "filter") return;
    allowWeights();
    clearTimeout(waiting);
    waiting = setTimeout(ask, 300);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    ask();
  });

  form.querySelector("[data-filter]").hidden = false;
  document.getElementById("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const choice of choices) {
      choice.hidden = !boxOf(choice).checked && !boxOf(choice).value.toLowerCase().includes(wanted);
    }
  });
}
