// Lets the questions of a chapter take an answer. Without this script they are what Sphinx made of
// them: a paragraph that begins with "Question 1.", and a drop-down for each answer, whose text
// begins with "Right." or "Wrong.".
(function () {
  "use strict";

  const QUESTION = /^Question \d+\.$/;
  const VERDICT = /^(Right|Wrong)\.$/;

  function make(tag, attributes, parent) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    parent.append(element);
    return element;
  }

  function beginning(element) {
    const bold = element && element.querySelector(":scope > strong:first-child");
    return bold ? bold.textContent.trim() : "";
  }

  // --- what the browser remembers -------------------------------------------------------------

  // A file has no origin of its own, and in some browsers all files share one: so the page's whole
  // address is in the name.
  const place = "answers: " + location.pathname;

  function recall() {
    try {
      const kept = JSON.parse(localStorage.getItem(place));
      return kept && typeof kept === "object" ? kept : {};
    } catch {
      return {}; // refused, or not ours
    }
  }

  // Whether the browser has kept it: it may refuse, and a full one does.
  function remember(answers) {
    try {
      if (Object.keys(answers).length) localStorage.setItem(place, JSON.stringify(answers));
      else localStorage.removeItem(place);
      return true;
    } catch {
      return false;
    }
  }

  // A question that was rewritten is another question, and nobody has answered it. Formulas are
  // left out: they are drawn before or after this.
  function fingerprint(elements) {
    let hash = 5381;
    for (const element of elements) {
      const copy = element.cloneNode(true);
      for (const formula of copy.querySelectorAll(".math, script")) formula.remove();
      for (const letter of copy.textContent.replace(/\s+/g, " ")) {
        hash = (Math.imul(hash, 33) ^ letter.codePointAt(0)) >>> 0;
      }
    }
    return hash.toString(36);
  }

  // --- one question ---------------------------------------------------------------------------

  function findQuestions() {
    const found = [];
    for (const asked of document.querySelectorAll("section > p")) {
      if (!QUESTION.test(beginning(asked))) continue;
      const answers = [];
      let next = asked.nextElementSibling;
      for (; next && next.matches("details.sd-dropdown"); next = next.nextElementSibling) {
        const text = next.querySelector(".sd-summary-text");
        const why = next.querySelector(".sd-summary-content");
        const verdict = VERDICT.exec(beginning(why && why.firstElementChild));
        if (text && verdict) answers.push({ folded: next, text, why, right: verdict[1] === "Right" });
      }
      // Anything else is left as it is.
      if (answers.length > 1 && answers.filter((answer) => answer.right).length === 1) {
        found.push({ asked, answers });
      }
    }
    return found;
  }

  function makeQuestion({ asked, answers }, number, onAnswer) {
    const key = fingerprint([asked, ...answers.map((answer) => answer.folded)]);
    const name = `question-${number}`;
    if (!asked.id) asked.id = name;
    const group = make("div", { class: "quiz", role: "group", "aria-labelledby": asked.id }, asked);
    asked.after(group);

    answers.forEach((answer, i) => {
      const id = `${name}-${i + 1}`;
      const choice = make("div", { class: "quiz-choice" }, group);
      const row = make("div", { class: "quiz-row" }, choice);
      // The answer stands beside its button and not in it: it may hold a formula or a link.
      const button = make("button", {
        type: "button", class: "quiz-letter", id,
        "aria-labelledby": `${id} ${id}-text ${id}-verdict`,
        "aria-expanded": "false", "aria-controls": `${id}-why`,
      }, row);
      button.textContent = String.fromCharCode(65 + i);
      const text = make("div", { class: "quiz-text", id: `${id}-text` }, row);
      text.append(...answer.text.childNodes);
      const verdict = make("span", { class: "quiz-verdict", id: `${id}-verdict` }, row);
      // What appears in it is read out.
      const said = make("div", { "aria-live": "polite" }, choice);
      const why = make("div", { class: "quiz-why", id: `${id}-why` }, said);
      why.append(...answer.why.childNodes);
      answer.folded.remove();

      answer.show = (chosen, open) => {
        choice.classList.toggle("quiz-right", chosen && answer.right);
        choice.classList.toggle("quiz-wrong", chosen && !answer.right);
        verdict.textContent = !chosen ? "" : answer.right ? "✓ right" : "✗ wrong";
        button.setAttribute("aria-expanded", String(chosen && open));
        why.hidden = !(chosen && open);
      };
      answer.focus = () => button.focus();
      answer.show(false, false);
      button.addEventListener("click", () => onAnswer(key, i, why.hidden));
    });
    return { key, answers };
  }

  // --- the page -------------------------------------------------------------------------------

  function start() {
    const found = findQuestions();
    if (!found.length) return;
    // For each question what was chosen, in order: the first is what counts.
    let chosen = recall();
    const questions = found.map((question, i) => makeQuestion(question, i + 1, choose));
    for (const { key, answers } of questions) {
      const kept = Array.isArray(chosen[key]) ? chosen[key] : [];
      chosen[key] = [...new Set(kept)].filter((i) => Number.isInteger(i) && answers[i]);
      for (const i of chosen[key]) answers[i].show(true, true);
    }
    // Those of questions that are gone go, too.
    chosen = Object.fromEntries(
      questions.map(({ key }) => [key, chosen[key]]).filter(([, all]) => all.length));

    const last = [...document.querySelectorAll(".quiz")].pop();
    const tally = make("div", { class: "quiz-tally" }, last);
    last.after(tally);
    const count = make("p", { role: "status" }, tally);
    const forget = make("button", { type: "button", class: "quiz-forget" }, tally);
    forget.textContent = "Forget my answers";
    forget.addEventListener("click", () => {
      chosen = {};
      for (const { answers } of questions) for (const answer of answers) answer.show(false, false);
      tell(remember(chosen));
      questions[0].answers[0].focus(); // the button that was pressed is gone
    });

    function choose(key, i, open) {
      const answers = questions.find((question) => question.key === key).answers;
      const all = (chosen[key] = chosen[key] || []);
      if (!all.includes(i)) all.push(i);
      answers[i].show(true, open);
      tell(remember(chosen));
    }

    function tell(kept) {
      const answered = questions.filter(({ key }) => chosen[key]);
      const right = answered.filter(({ key, answers }) => answers[chosen[key][0]].right);
      count.textContent = `Answered: ${answered.length} of ${questions.length}. ` +
        `Right at the first try: ${right.length}.` +
        (kept || !answered.length ? "" : " This browser keeps no answers once the page is left.");
      forget.hidden = !answered.length;
    }
    tell(remember(chosen));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
