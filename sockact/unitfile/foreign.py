"""The keys in a ``.socket`` file that are systemd's business alone, and what to say of them.

Kept apart from the directive table because most units hold none of them, and none is imported
for a definition that does not. The names are those of systemd 252's
``systemd --dump-configuration-items`` and of the manuals up to version 261.
"""

import functools

from sockact.directives import TABLE, nearest

_COMMAND_KEYS = frozenset(
    """
    AllowedCPUs AllowedMemoryNodes AmbientCapabilities AppArmorProfile BPFDelegateAttachments
    BPFDelegateCommands BPFDelegateMaps BPFDelegatePrograms BPFProgram BindLogSockets
    BindNetworkInterface BindPaths BindReadOnlyPaths BlockIOAccounting BlockIODeviceWeight
    BlockIOReadBandwidth BlockIOWeight BlockIOWriteBandwidth CPUAccounting CPUAffinity
    CPUPressureThresholdSec CPUPressureWatch CPUQuota CPUQuotaPeriodSec CPUSchedulingPolicy
    CPUSchedulingPriority CPUSchedulingResetOnFork CPUShares CPUWeight CacheDirectory
    CacheDirectoryAccounting CacheDirectoryMode CacheDirectoryQuota CapabilityBoundingSet
    ConfigurationDirectory ConfigurationDirectoryMode CoredumpFilter CoredumpReceive
    DefaultMemoryLow DefaultMemoryMin DefaultStartupMemoryLow Delegate DelegateSubgroup
    DeviceAllow DevicePolicy DisableControllers DynamicUser Environment EnvironmentFile
    ExecPaths ExecSearchPath ExtensionDirectories ExtensionImagePolicy ExtensionImages
    FinalKillSignal Group IOAccounting IODeviceLatencyTargetSec IODeviceWeight
    IOPressureThresholdSec IOPressureWatch IOReadBandwidthMax IOReadIOPSMax IOSchedulingClass
    IOSchedulingPriority IOWeight IOWriteBandwidthMax IOWriteIOPSMax IPAccounting
    IPAddressAllow IPAddressDeny IPCNamespacePath IPEgressFilterPath IPIngressFilterPath
    IgnoreSIGPIPE ImportCredential InaccessibleDirectories InaccessiblePaths KeyringMode
    KillMode KillSignal LimitAS LimitCORE LimitCPU LimitDATA LimitFSIZE LimitLOCKS
    LimitMEMLOCK LimitMSGQUEUE LimitNICE LimitNOFILE LimitNPROC LimitRSS LimitRTPRIO
    LimitRTTIME LimitSIGPENDING LimitSTACK LoadCredential LoadCredentialEncrypted
    LockPersonality LogExtraFields LogLevelMax LogNamespace LogRateLimitBurst
    LogRateLimitIntervalSec LogsDirectory LogsDirectoryAccounting LogsDirectoryMode
    LogsDirectoryQuota ManagedOOMMemoryPressure ManagedOOMMemoryPressureDurationSec
    ManagedOOMMemoryPressureLimit ManagedOOMPreference ManagedOOMSwap MemoryAccounting
    MemoryDenyWriteExecute MemoryHigh MemoryKSM MemoryLimit MemoryLow MemoryMax MemoryMin
    MemoryPressureThresholdSec MemoryPressureWatch MemorySwapMax MemoryTHP MemoryZSwapMax
    MemoryZSwapWriteback MountAPIVFS MountFlags MountImagePolicy MountImages NFTSet NUMAMask
    NUMAPolicy NetworkNamespacePath Nice NoExecPaths NoNewPrivileges OOMScoreAdjust PAMName
    PassEnvironment Personality PrivateBPF PrivateDevices PrivateIPC PrivateMounts
    PrivateNetwork PrivatePIDs PrivateTmp PrivateUsers ProcSubset ProtectClock
    ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs ProtectKernelModules
    ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyDirectories ReadOnlyPaths
    ReadWriteDirectories ReadWritePaths RemoveIPC RestartKillSignal RestrictAddressFamilies
    RestrictFileSystems RestrictNamespaces RestrictNetworkInterfaces RestrictRealtime
    RestrictSUIDSGID RootDirectory RootEphemeral RootHash RootHashSignature RootImage
    RootImageOptions RootImagePolicy RootMStack RootVerity RuntimeDirectory
    RuntimeDirectoryMode RuntimeDirectoryPreserve SELinuxContext SecureBits SendSIGHUP
    SendSIGKILL SetCredential SetCredentialEncrypted SetLoginEnvironment Slice
    SmackProcessLabel SocketBindAllow SocketBindDeny StandardError StandardInput
    StandardInputData StandardInputText StandardOutput StartupAllowedCPUs
    StartupAllowedMemoryNodes StartupBlockIOWeight StartupCPUShares StartupCPUWeight
    StartupIOWeight StartupMemoryHigh StartupMemoryLow StartupMemoryMax StartupMemorySwapMax
    StartupMemoryZSwapMax StateDirectory StateDirectoryAccounting StateDirectoryMode
    StateDirectoryQuota SupplementaryGroups SyslogFacility SyslogIdentifier SyslogLevel
    SyslogLevelPrefix SystemCallArchitectures SystemCallErrorNumber SystemCallFilter
    SystemCallLog TTYColumns TTYPath TTYReset TTYRows TTYVHangup TTYVTDisallocate
    TasksAccounting TasksMax TemporaryFileSystem TimeoutCleanSec TimerSlackNSec UMask
    UnsetEnvironment User UserNamespacePath UtmpIdentifier UtmpMode WatchdogSignal
    WorkingDirectory
    """.split()
)
"""systemd.exec(5), systemd.kill(5) and systemd.resource-control(5): valid in [Socket]."""

_GRAPH_KEYS = frozenset(
    """
    After AllowIsolate Before BindTo BindsTo CollectMode Conflicts DefaultDependencies
    FailureAction FailureActionExitStatus IgnoreOnIsolate JobRunningTimeoutSec
    JobTimeoutAction JobTimeoutRebootArgument JobTimeoutSec JoinsNamespaceOf OnFailure
    OnFailureIsolate OnFailureJobMode OnSuccess OnSuccessJobMode PartOf PropagateReloadFrom
    PropagateReloadTo PropagatesReloadTo PropagatesStopTo RebootArgument RefuseManualStart
    RefuseManualStop ReloadPropagatedFrom Requires RequiresMountsFor RequiresOverridable
    Requisite RequisiteOverridable StartLimitAction StartLimitBurst StartLimitInterval
    StartLimitIntervalSec StopPropagatedFrom StopWhenUnneeded SuccessAction
    SuccessActionExitStatus SurviveFinalKillSignal Upholds Wants WantsMountsFor
    """.split()
)
"""[Unit] keys about other units and jobs."""

_CHECKS = frozenset(
    """
    ACPower Architecture CPUFeature CPUPressure CPUs Capability ControlGroupController
    Credential DirectoryNotEmpty Environment FileIsExecutable FileNotEmpty Firmware FirstBoot
    Fraction Group Host IOPressure KernelCommandLine KernelModuleLoaded KernelVersion
    MachineTag Memory MemoryPressure NeedsUpdate OSRelease PathExists PathExistsGlob
    PathIsDirectory PathIsEncrypted PathIsMountPoint PathIsReadWrite PathIsSocket
    PathIsSymbolicLink Security User Version Virtualization
    """.split()
)
"""What Condition…= and Assert…= can ask for."""

_INSTALL_KEYS = frozenset({"Alias", "WantedBy", "RequiredBy", "UpheldBy", "Also", "DefaultInstance"})
_TEXT_KEYS = frozenset({"Description", "Documentation", "SourcePath"})


@functools.cache
def _unit_keys() -> frozenset[str]:
    checks = {prefix + check for prefix in ("Condition", "Assert") for check in _CHECKS}
    return _GRAPH_KEYS | _TEXT_KEYS | checks


def _unknown(key: str, section: str, known: frozenset[str]) -> str:
    near = nearest(key, known)
    meant = f"; did you mean {near}=?" if near else ""
    return f"unknown key {key}= in [{section}]{meant}; ignored"


def unit_section(section: str, key: str) -> str:
    """Return what to say of a key of [Unit] or [Install]; empty if nothing is lost by ignoring it.

    Ordering, requirements and [Install] tie a unit to others in systemd's graph. Where there is no
    graph, leaving them out changes nothing about the sockets, so they pass in silence; a
    condition that is not evaluated does change something.
    """
    if key.startswith("X-"):
        return ""
    if section == "Install":
        return "" if key in _INSTALL_KEYS else _unknown(key, section, _INSTALL_KEYS)
    if key.startswith(("Condition", "Assert")) and key in _unit_keys():
        return f"{key}= has no effect: conditions are not evaluated, the sockets are opened anyway"
    return "" if key in _unit_keys() else _unknown(key, section, _unit_keys())


def foreign_key(key: str) -> str:
    """Return what to say of a key of [Socket] that is no row of the directive table."""
    if key in _COMMAND_KEYS:
        return f"{key}= has no effect: it is for the commands of the unit, which are not run"
    return _unknown(key, "Socket", frozenset(TABLE) | _COMMAND_KEYS)
