"""Where and when it was measured."""
import datetime
import os
import platform
import subprocess


def first_line(path, key=None):
    try:
        with open(path) as file:
            for line in file:
                if key is None or line.startswith(key):
                    return line.split(":", 1)[-1].strip()
    except OSError:
        pass
    return ""


def commit():
    try:
        here = os.path.dirname(os.path.abspath(__file__))
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def facts():
    return {
        "processor": first_line("/proc/cpuinfo", "model name") or platform.machine(),
        "processors": os.cpu_count(),
        "virtual": "hypervisor" in first_line("/proc/cpuinfo", "flags").split(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "huge_pages": first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "kernel": platform.release(),
        "date": datetime.date.today().isoformat(),
        "load": os.getloadavg()[2],  # of the last quarter of an hour: this run's own included
        "commit": commit(),
    }


def caption(machine):
    kind = "virtual machine" if machine["virtual"] else "machine"
    return (
        f"{machine['processor']}, {kind} with {machine['processors']} processors; "
        f"Linux {machine['kernel']}; {machine['date']}"
    )
