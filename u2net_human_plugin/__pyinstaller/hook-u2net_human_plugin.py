"""What PyInstaller cannot see: adapters that are imported by name, and the weights."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

# The names of the package itself are imported when first used.
hiddenimports = collect_submodules("u2net_human_plugin.hosts") + [
    f"u2net_human_plugin.{name}" for name in ("options", "segmenter")
]
datas = collect_data_files("u2net_human_plugin", subdir="weights")
