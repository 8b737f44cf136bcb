(() => {
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const own = target?.closest("details.experiment");
    if (!own) return;
    own.open = true;
    own.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
