// Follows logs: asks for the lines after the last one each second while the page is seen.
(() => {
  const SECOND = 1000;

  for (const log of document.querySelectorAll("pre[data-log]")) {
    const pane = log.closest(".log-pane");
    const state = pane.querySelector("[data-log-state]");
    const follow = pane.querySelector("[data-follow]");
    let position = log.dataset.logPosition;
    let failures = 0;
    let trouble = "";  // why the server's log can't be read
    pane.querySelector("[data-follow-switch]").hidden = false;

    const toEnd = () => { if (follow.checked) log.scrollTop = log.scrollHeight; };
    const say = (text) => { if (state.textContent !== text) state.textContent = text; };

    // Scrolling up stops following, scrolling back to the end starts it again.
    log.addEventListener("scroll", () => {
      follow.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
    });
    follow.addEventListener("change", toEnd);

    async function ask() {
      const answer = await fetch(`${log.dataset.log}?after=${encodeURIComponent(position)}`, { redirect: "error" });
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      if (text) {
        log.append(text);
        pane.querySelector("[data-log-empty]")?.remove();
        toEnd();
      }
      position = answer.headers.get("X-Log-Position") ?? position;
      trouble = decodeURIComponent(answer.headers.get("X-Log-Error") ?? "");
      return answer.headers.has("X-Log-End");
    }

    async function again() {
      let ended = false;
      if (!document.hidden) {
        try {
          ended = await ask();
          failures = 0;
          say(trouble ? `No new lines. ${trouble}` : ended ? "Ended" : "Following live");
        } catch {
          failures = Math.min(failures + 1, 5);
          say("Unreachable, retrying");
        }
      }
      if (!ended) setTimeout(again, SECOND * 2 ** failures);
    }

    toEnd();
    again();
  }
})();
