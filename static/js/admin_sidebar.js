// Opens Django's sidebar while the page is still being read: its own script does so later, and all else would move.
if (localStorage.getItem("django.admin.navSidebarIsOpen") !== "false") {
  document.getElementById("main").classList.add("shifted");
}
