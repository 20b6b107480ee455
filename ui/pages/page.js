// What the page does by itself: sources in a dialog, copy, edit, and handing clicks to the server.
(() => {
  "use strict";

  const state = { value: "", title: "", editing: "" };
  const KEY = "ragsmith.conversation";
  const DRAFT_LOOKS = 20;
  const DRAFT = "ragsmith.draft";
  const LOOK_MS = 3000;

  const byId = (id) => document.getElementById(id);
  const questionBox = () => document.querySelector("#question textarea");

  // The server's side of a click is a hidden button; what was clicked goes with it.
  function hand(name, value, title = "") {
    state.value = value;
    state.title = title;
    byId(`do-${name}`)?.click();
  }

  function fill(box, text) {
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // --- sources -----------------------------------------------------------------------------------------

  function openSource(href) {
    let dialog = byId("rs-dialog");
    if (!dialog) {
      dialog = document.createElement("dialog");
      dialog.id = "rs-dialog";
      dialog.setAttribute("aria-label", "Source");
      dialog.innerHTML =
        '<div class="rs-dialog-head"><a target="_blank" rel="noopener">Open in a tab ↗</a>' +
        '<button type="button" title="Close (Esc)" aria-label="Close">✕</button></div><iframe title="Source"></iframe>';
      dialog.querySelector("button").addEventListener("click", () => dialog.close());
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
      dialog.addEventListener("close", () => dialog.querySelector("iframe").removeAttribute("src"));
      dialog.querySelector("iframe").addEventListener("load", (event) => {
        // A key pressed inside the frame is not heard by the dialog.
        event.target.contentDocument?.addEventListener("keydown", (key) => key.key === "Escape" && dialog.close());
      });
      document.body.append(dialog);
    }
    dialog.querySelector("a").href = href;
    dialog.querySelector("iframe").src = href;
    dialog.showModal();
  }

  // --- copy ----------------------------------------------------------------------------------------------

  async function copy(button) {
    const answer = button.closest(".rs-answer").querySelector(".rs-text").cloneNode(true);
    answer.querySelectorAll("a.rs-cite").forEach((link) => link.replaceWith(`[${link.textContent}]`));
    // Only what is laid out has its line breaks in innerText.
    answer.style.cssText = "position:fixed;left:-10000px;white-space:normal";
    document.body.append(answer);
    const text = answer.innerText.trim();
    answer.remove();
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      button.textContent = "not allowed";
    }
    setTimeout(() => (button.textContent = "copy"), 1500);
  }

  // --- edit ------------------------------------------------------------------------------------------------

  function edit(button) {
    state.editing = button.value;
    fill(questionBox(), button.closest(".rs-question").querySelector(".rs-asked").textContent);
    document.body.classList.add("rs-is-editing");
    questionBox().focus();
  }

  function endEdit() {
    state.editing = "";
    document.body.classList.remove("rs-is-editing");
  }

  function rename(button) {
    const row = button.closest(".rs-conv");
    const title = row.querySelector(".rs-conv-title");
    const box = document.createElement("input");
    box.className = "rs-rename-box";
    box.value = title.textContent;
    box.maxLength = 200;
    box.setAttribute("aria-label", "Name of the conversation");
    const before = title.closest("button");
    let over = false;
    const end = (keep) => {
      if (over) return;
      over = true;
      box.replaceWith(before);
      if (keep && box.value.trim() && box.value !== title.textContent) {
        title.textContent = box.value;
        hand("rename", button.value, box.value);
      }
    };
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") end(false);
    });
    box.addEventListener("blur", () => end(true));
    before.replaceWith(box);
    box.select();
  }

  // --- traces ----------------------------------------------------------------------------------------------

  // The row of a trace that was opened from elsewhere, such as by "Next", is marked as well.
  function openTrace(id) {
    document.querySelectorAll("#trace-rows .rs-row").forEach((row) => {
      const on = row.querySelector(".rs-open-trace")?.value === id;
      row.classList.toggle("is-on", on);
      if (on) row.scrollIntoView({ block: "nearest" });
    });
    hand("open-trace", id);
  }

  // Leads to another part of the trace, and opens what it lies in.
  function jump(link) {
    const target = byId(link.getAttribute("href").slice(1));
    if (!target) return;
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    target.scrollIntoView({ block: "center" });
    target.classList.remove("rs-reached");
    void target.offsetWidth;
    target.classList.add("rs-reached");
  }

  function saveFilter(button) {
    const box = document.createElement("input");
    box.className = "rs-rename-box";
    box.maxLength = 120;
    box.placeholder = "Name of the filter";
    box.setAttribute("aria-label", box.placeholder);
    let over = false;
    const end = (keep) => {
      if (over) return;
      over = true;
      box.replaceWith(button);
      if (keep && box.value.trim()) hand("save-filter", box.value.trim());
    };
    box.addEventListener("keydown", (event) => {
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") end(false);
    });
    box.addEventListener("blur", () => end(false));
    button.replaceWith(box);
    box.focus();
  }

  // The thumb, the comment and the right answer that were given on the page of a trace.
  function rate(button) {
    const form = button.closest(".rs-rating");
    const thumb = form.querySelector("input:checked");
    if (!thumb) return form.querySelector("input").focus();
    const [comment, correction] = [...form.querySelectorAll("textarea")].map((box) => box.value);
    hand("rate-trace", JSON.stringify({ trace: button.value, rating: thumb.value, comment, correction }));
  }

  // Dragging over the bars of a chart zooms to them; a click on one is handed on like any other.
  const drag = { from: null, to: null };
  const slotOf = (event) => event.target.closest?.(".rs-slot");
  const endsOf = (slot) => slot.dataset.value.split(" ").slice(1).map(Number);

  function markDrag() {
    const slots = [...drag.from.parentElement.querySelectorAll(".rs-slot")];
    const [first, last] = [slots.indexOf(drag.from), slots.indexOf(drag.to)].sort((a, b) => a - b);
    slots.forEach((slot, at) => slot.classList.toggle("is-on", at >= first && at <= last));
  }

  document.addEventListener("pointerdown", (event) => {
    drag.from = drag.to = slotOf(event);
  });
  document.addEventListener("pointermove", (event) => {
    const slot = slotOf(event);
    if (!drag.from || !slot || slot === drag.to || slot.parentElement !== drag.from.parentElement) return;
    drag.to = slot;
    markDrag();
  });
  document.addEventListener("pointerup", () => {
    const { from, to } = drag;
    drag.from = drag.to = null;
    if (!from || from === to) return;
    const ends = [...endsOf(from), ...endsOf(to)];
    hand("traces", `zoom ${Math.min(...ends)} ${Math.max(...ends)}`);
  });

  // --- clicks ----------------------------------------------------------------------------------------------

  const actions = {
    "rs-copy": copy,
    "rs-edit": edit,
    "rs-cancel-edit": () => {
      endEdit();
      fill(questionBox(), "");
    },
    "rs-fold": (button) => {
      button.setAttribute("aria-expanded", !document.body.classList.toggle("rs-folded"));
    },
    "rs-open-conv": (button) => {
      endEdit();
      hand("open-conversation", button.value);
    },
    "rs-rename": rename,
    "rs-delete": (button) => {
      if (confirm("Delete this conversation? The traces of its answers stay.")) hand("delete", button.value);
    },
    "rs-forget": (button) => {
      const name = button.closest(".rs-doc").querySelector(".rs-doc-name").textContent;
      if (confirm(`Remove ${name} from the corpus? ${button.dataset.kept}`)) hand("forget", button.value);
    },
    "rs-older": () => hand("older", ""),
    // Gradio's chatbot lets no data attribute through.
    "rs-case": (button) => hand("case-of-trace", button.value),
    "rs-open-trace": (button) => openTrace(button.value),
    "rs-save-filter": saveFilter,
    "rs-rate": rate,
    "rs-playground": (button) => hand("playground", button.value),
  };

  // Every view has an address; the browser shows that of the open one.
  const INNER = { prompts: "prompt-parts", evaluate: "evaluate-tabs" };
  const FIRST = { prompts: "library", evaluate: "runs" };
  const linked = new URLSearchParams(location.search);
  const named = linked.get("tab") ?? (linked.has("trace") ? "traces" : "chat");
  const addresses = { [FIRST[named] ?? named]: linked.toString() };
  let view = "chat";
  // Until the view of a link is open, its address stays: the server reads it.
  let opened = named === view;

  function selected(tabs) {
    return document.querySelector(`#${tabs} > .tab-wrapper [aria-selected=true]`)?.dataset.tabId;
  }

  function openView() {
    const tab = selected("tabs");
    return INNER[tab] ? selected(INNER[tab]) : tab;
  }

  function showAddress() {
    if (!opened) return;
    history.replaceState(null, "", addresses[view] ? `?${addresses[view]}` : location.pathname);
  }

  // Also where an event of the server turns to another view.
  new MutationObserver(() => {
    const now = openView();
    if (!now || now === view) return;
    view = now;
    opened = true;
    showAddress();
  }).observe(document.documentElement, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["aria-selected"],
  });

  document.addEventListener("click", (event) => {
    const plain = event.button === 0 && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    const link = event.target.closest("a");
    if (link && plain && link.matches(".rs-cite, .rs-open")) {
      event.preventDefault();
      openSource(link.getAttribute("href"));
      return;
    }
    if (link && plain && link.matches(".rs-trace")) {
      event.preventDefault();
      hand("open-trace", new URL(link.href).searchParams.get("trace"));
      return;
    }
    if (link && plain && link.matches(".rs-jump")) {
      event.preventDefault();
      jump(link);
      return;
    }
    const doer = event.target.closest("[data-do]");
    if (doer) {
      hand(doer.dataset.do, doer.dataset.value ?? doer.value ?? "");
      return;
    }
    const button = event.target.closest("button");
    const name = button && [...button.classList].find((each) => each in actions);
    if (name) {
      actions[name](button);
      return;
    }
    const row = event.target.closest("tr.rs-row");
    if (row) row.querySelector(".rs-open-trace").click();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && state.editing !== "" && event.target === questionBox()) {
      actions["rs-cancel-edit"]();
    }
  });

  // One key runs all columns of the lab, with what has been typed so far.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !event.target.closest("#lab")) return;
    event.preventDefault();
    byId("lab-run")?.click();
    const column = event.target.closest(".rs-lab-column");
    column?.querySelector("[id^=lab-][id$=-answer]")?.scrollIntoView({ block: "center" });
  });

  // --- the server goes and comes ---------------------------------------------------------------------------

  async function look() {
    const lost = byId("rs-lost");
    try {
      await fetch("favicon.ico", { cache: "no-store" });
      // A new server knows nothing of this page; what was being typed is carried over.
      if (lost) location.reload();
    } catch {
      if (lost) return;
      const note = document.createElement("div");
      note.id = "rs-lost";
      note.setAttribute("role", "alert");
      note.textContent = "ragsmith does not answer: it was stopped. Start it again, and this page comes back by itself.";
      document.body.append(note);
      keepDraft();
    }
  }

  // Kept from now on, and not before the reload: Gradio may reload the page first.
  function keepDraft() {
    sessionStorage.setItem(DRAFT, questionBox()?.value ?? "");
  }
  document.addEventListener("input", (event) => {
    if (byId("rs-lost") && event.target === questionBox()) keepDraft();
  });
  setInterval(() => document.visibilityState === "visible" && look(), LOOK_MS);

  // While a page loads, Gradio may replace the input line: fill it until it keeps the text, or a person types.
  function restoreDraft(looks = DRAFT_LOOKS) {
    const text = sessionStorage.getItem(DRAFT);
    if (!text) return;
    if (looks === DRAFT_LOOKS) {
      document.addEventListener("keydown", () => sessionStorage.removeItem(DRAFT), { capture: true, once: true });
    }
    const box = questionBox();
    if (box && !box.value) fill(box, text);
    if (looks) setTimeout(restoreDraft, 100, looks - 1);
    else sessionStorage.removeItem(DRAFT);
  }

  // Gradio labels a message with its own HTML, which a screen reader would read aloud.
  function relabel() {
    document.querySelectorAll("#chatbot [data-testid][aria-label]").forEach((message) => {
      const label = { user: "Question", bot: "Answer" }[message.dataset.testid];
      if (label && message.getAttribute("aria-label") !== label) message.setAttribute("aria-label", label);
    });
  }
  // Gradio draws these buttons without a name.
  function nameButtons() {
    for (const [kind, label] of [["submit", "Send"], ["stop", "Stop"]]) {
      document.querySelector(`#question .${kind}-button:not([aria-label])`)?.setAttribute("aria-label", label);
    }
  }
  // A cited sentence below the fold of its card is scrolled to, once.
  function reveal() {
    document.querySelectorAll("#sources .rs-passage:not([data-shown])").forEach((passage) => {
      passage.dataset.shown = "";
      const mark = passage.querySelector("mark");
      if (!mark) return;
      const place = mark.getBoundingClientRect();
      const card = passage.getBoundingClientRect();
      if (place.bottom > card.bottom) passage.scrollTop = place.top - card.top - 40;
    });
  }
  new MutationObserver(() => {
    reveal();
    nameButtons();
  }).observe(document.documentElement, { subtree: true, childList: true });
  new MutationObserver(relabel).observe(document.documentElement, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["aria-label"],
  });

  // --- what Gradio's events ask for ------------------------------------------------------------------------

  window.ragsmith = {
    get value() {
      return state.value;
    },
    get title() {
      return state.title;
    },
    // What a view shows, in its address: it can be kept and sent to others.
    address(of, query) {
      addresses[of] = query;
      showAddress();
    },
    takeEditing() {
      const position = state.editing;
      endEdit();
      return position;
    },
    remember(conversation) {
      sessionStorage.setItem(KEY, conversation ?? "");
      this.address("chat", conversation ? new URLSearchParams({ conversation }).toString() : "");
    },
    remembered() {
      restoreDraft();
      // A view that the address names is asked for when all is there.
      const query = new URLSearchParams(location.search);
      const tab = query.get("tab");
      if (tab) setTimeout(() => hand(`link-${CSS.escape(tab)}`, ""), 0);
      return query.get("conversation") ?? sessionStorage.getItem(KEY) ?? "";
    },
  };
})();
