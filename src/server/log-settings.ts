/** LogSettings: Triton's switches, mapped to the level of this host's log. Where the log goes is the operator's business. */
import { intarsiaError } from '#core/errors.js';
import type { LogSettingsRequest, LogSettingsResponse, LogSettingsResponse_SettingValue } from '#gen/inference.js';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** The log's level, readable and changeable while the host runs. */
export interface LogLevelControl {
  level(): LogLevel;
  setLevel(level: LogLevel): void;
}

export class LogSettings {
  readonly #control: LogLevelControl;

  constructor(control: LogLevelControl) {
    this.#control = control;
  }

  /** Applies what is set, and tells everything. @throws INVALID_ARGUMENT for keys and values this host cannot follow. */
  apply(request: LogSettingsRequest): LogSettingsResponse {
    const level = this.#control.level();
    let verbose = level === 'debug';
    let info = level === 'debug' || level === 'info';
    let warning = level !== 'error';
    for (const [key, { parameterChoice: choice }] of Object.entries(request.settings)) {
      if (key === 'log_verbose_level' && choice.oneofKind === 'uint32Param') verbose = choice.uint32Param > 0;
      else if (key === 'log_info' && choice.oneofKind === 'boolParam') info = choice.boolParam;
      else if (key === 'log_warning' && choice.oneofKind === 'boolParam') warning = choice.boolParam;
      else if (key === 'log_error' && choice.oneofKind === 'boolParam' && choice.boolParam) continue;
      else {
        throw intarsiaError(
          'INVALID_ARGUMENT',
          `log setting '${key.slice(0, 80)}' cannot be changed here, or its value is of the wrong type; ` +
            'log_verbose_level, log_info and log_warning can, and errors are always logged',
        );
      }
    }
    const wanted: LogLevel = verbose ? 'debug' : info ? 'info' : warning ? 'warn' : 'error';
    if (wanted !== level) this.#control.setLevel(wanted);
    return { settings: settingsOf(wanted) };
  }
}

function settingsOf(level: LogLevel): Record<string, LogSettingsResponse_SettingValue> {
  const flag = (boolParam: boolean): LogSettingsResponse_SettingValue => ({
    parameterChoice: { oneofKind: 'boolParam', boolParam },
  });
  const text = (stringParam: string): LogSettingsResponse_SettingValue => ({
    parameterChoice: { oneofKind: 'stringParam', stringParam },
  });
  return {
    log_file: text(''),
    log_info: flag(level === 'debug' || level === 'info'),
    log_warning: flag(level !== 'error'),
    log_error: flag(true),
    log_verbose_level: { parameterChoice: { oneofKind: 'uint32Param', uint32Param: level === 'debug' ? 1 : 0 } },
    log_format: text('default'),
  };
}
