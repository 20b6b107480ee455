"""Notices of alerts as mails."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate

from rag.alert_settings import AlertSettings, is_own_machine
from rag.alerting.alert_notices import Notice
from rag.alerting.alert_texts import length_text
from rag.errors import DeliveryError, first_line
from rag.redaction import redact


class MailChannel:
    """Sends notices through an SMTP server.

    Args:
        settings: The server, its user, and the addresses.
    """

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings

    def send(self, notice: Notice) -> None:
        """Send a notice to all receivers in one mail.

        Raises:
            DeliveryError: The server does not answer, or refuses; the address of a receiver cannot be used.
        """
        settings = self._settings
        if settings.smtp_password and settings.smtp_security == "none" and not is_own_machine(settings.smtp_host):
            raise DeliveryError(
                "A password is not sent to a mail server without encryption.",
                fix="Set alerts.smtp_security to starttls or tls.",
            )
        try:
            self._send(self._mail(notice))
        except smtplib.SMTPAuthenticationError as error:
            raise self._failed("does not accept alerts.smtp_user and its password") from error
        except smtplib.SMTPRecipientsRefused as error:
            raise self._failed("refuses all receivers") from error
        except ssl.SSLError as error:
            raise self._failed(f"has no usable encryption ({first_line(error)})") from error
        except TimeoutError as error:
            raise self._failed(f"did not answer within {settings.timeout_s:g} seconds") from error
        except (smtplib.SMTPException, OSError) as error:
            raise self._failed(f"cannot be used: {redact(first_line(error))[:200]}") from error
        except ValueError as error:
            raise DeliveryError(
                f"The mail cannot be written: {redact(first_line(error))[:200]}.",
                fix="Correct alerts.mail_to and alerts.mail_from.",
            ) from error

    def _send(self, mail: EmailMessage) -> None:
        settings, context = self._settings, ssl.create_default_context()
        place = (settings.smtp_host, settings.smtp_port)
        with (
            smtplib.SMTP_SSL(*place, timeout=settings.timeout_s, context=context)
            if settings.smtp_security == "tls"
            else smtplib.SMTP(*place, timeout=settings.timeout_s)
        ) as server:
            if settings.smtp_security == "starttls":
                server.starttls(context=context)
            if settings.smtp_user:
                password = settings.smtp_password
                server.login(settings.smtp_user, password.get_secret_value() if password else "")
            server.send_message(mail)

    def _mail(self, notice: Notice) -> EmailMessage:
        settings, message = self._settings, notice.message
        mail = EmailMessage()
        mail["Subject"] = message.title
        mail["From"] = settings.mail_from or settings.mail_to[0]
        mail["To"] = ", ".join(settings.mail_to)
        mail["Date"] = formatdate(message.at, localtime=True)
        # The same for every attempt, so that a program can recognize a repeat.
        mail["Message-ID"] = f"<{notice.id}@ragsmith>"
        only = f"\nOnly answers with: {message.filter}" if message.filter else ""
        mail.set_content(
            f"{message.text}\n\nAlert: {message.alert}\nLevel: {message.level}, before {message.before}\n"
            f"Window: {length_text(message.window_s)}{only}\n"
        )
        return mail

    def _failed(self, reason: str) -> DeliveryError:
        settings = self._settings
        return DeliveryError(
            f"The mail server {settings.smtp_host}:{settings.smtp_port} {reason}.",
            fix="Check it, and the settings of alerts that begin with smtp_ and mail_.",
        )
